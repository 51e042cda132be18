//! What is to go wrong, and when. Pure.

/// What SQLite asks of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Opens a file, and creates it if it is not there.
    Open,
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Shortens or lengthens a file.
    Truncate,
    /// Asks for what was written to be on the disk.
    Sync,
    /// Deletes a file.
    Delete,
}

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The disk is full (ENOSPC). Half of a write is there.
    Full,
    /// The disk does not answer (EIO). Half of a write is there; after a failed sync nobody knows what is.
    Broken,
    /// A read gives one wrong bit, and no error.
    FlippedBit,
}

/// Whether the operations after it fail as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasts {
    /// They do not.
    Once,
    /// They do, until [`crate::Disk::heal`].
    UntilHealed,
}

/// Something that is to go wrong.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// With which operation; `None` is any that changes something.
    pub operation: Option<Operation>,
    /// With the how manieth of them from this moment; 1 is the next.
    pub number: u64,
    /// How.
    pub trouble: Trouble,
    /// How long.
    pub lasts: Lasts,
}

/// Which syncs do nothing and say that they did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Those of the log, as if commits did not wait for the disk.
    Log,
    /// All of them.
    Everything,
}

/// What becomes of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is carried out.
    Goes,
    /// It fails.
    Fails(Trouble),
    /// The power goes while it is carried out.
    LosesPower,
    /// The power is off.
    NoPower,
    /// The disk takes no changes.
    ReadOnly,
}

/// What goes wrong in one folder.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    fault: Option<Fault>,
    cut_at: Option<u64>,
    is_off: bool,
    pub(crate) is_read_only: bool,
    pub(crate) lie: Option<Lie>,
    /// Operations that change something, so far.
    changes: u64,
    /// Operations that failed by plan, so far.
    failed: u64,
}

impl Plan {
    pub(crate) fn fail(&mut self, fault: Option<Fault>) {
        self.fault = fault;
    }

    pub(crate) fn cut_power_at(&mut self, change: u64) {
        self.cut_at = Some(self.changes + change);
    }

    pub(crate) fn cut_power(&mut self) {
        self.is_off = true;
    }

    pub(crate) fn is_off(&self) -> bool {
        self.is_off
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failed
    }

    /// Counts an operation and judges it.
    pub(crate) fn judge(&mut self, operation: Operation) -> Verdict {
        let changes_something = !matches!(operation, Operation::Read | Operation::Open);
        self.changes += u64::from(changes_something);
        if self.is_off {
            return Verdict::NoPower;
        }
        if changes_something && self.cut_at.is_some_and(|at| self.changes >= at) {
            self.is_off = true;
            return Verdict::LosesPower;
        }
        if let Some(trouble) = self.trouble(operation, changes_something) {
            self.failed += 1;
            return Verdict::Fails(trouble);
        }
        if changes_something && self.is_read_only { Verdict::ReadOnly } else { Verdict::Goes }
    }

    fn trouble(&mut self, operation: Operation, changes_something: bool) -> Option<Trouble> {
        let fault = self.fault.as_mut()?;
        if !fault.operation.map_or(changes_something, |meant| meant == operation) {
            return None;
        }
        fault.number = fault.number.saturating_sub(1);
        if fault.number > 0 {
            return None;
        }
        let trouble = fault.trouble;
        if fault.lasts == Lasts::Once {
            self.fault = None;
        }
        Some(trouble)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(plan: &mut Plan, operations: &[Operation]) -> Vec<Verdict> {
        operations.iter().map(|operation| plan.judge(*operation)).collect()
    }

    const SOME: [Operation; 6] = [
        Operation::Write,
        Operation::Read,
        Operation::Sync,
        Operation::Write,
        Operation::Open,
        Operation::Write,
    ];

    #[test]
    fn the_power_goes_at_a_change_and_stays_off() {
        let mut plan = Plan::default();
        plan.cut_power_at(2);

        let (goes, off) = (Verdict::Goes, Verdict::NoPower);
        let expected = [goes, goes, Verdict::LosesPower, off, off, off];
        assert_eq!(judged(&mut plan, &SOME), expected);
        assert!(plan.is_off());
    }

    #[test]
    fn the_operation_that_is_meant_fails_once_or_until_healed() {
        for (lasts, last) in
            [(Lasts::Once, Verdict::Goes), (Lasts::UntilHealed, Verdict::Fails(Trouble::Full))]
        {
            let mut plan = Plan::default();
            let operation = Some(Operation::Write);
            plan.fail(Some(Fault { operation, number: 2, trouble: Trouble::Full, lasts }));

            let goes = Verdict::Goes;
            let expected = [goes, goes, goes, Verdict::Fails(Trouble::Full), goes, last];
            assert_eq!(judged(&mut plan, &SOME), expected);
            plan.fail(None);
            assert_eq!(plan.judge(Operation::Write), Verdict::Goes);
        }
    }

    #[test]
    fn without_an_operation_any_change_is_meant() {
        let mut plan = Plan::default();
        let (trouble, lasts) = (Trouble::Broken, Lasts::Once);
        plan.fail(Some(Fault { operation: None, number: 2, trouble, lasts }));

        assert_eq!(judged(&mut plan, &SOME)[2], Verdict::Fails(Trouble::Broken));
        assert_eq!(plan.failed(), 1);
    }

    #[test]
    fn a_read_only_disk_can_be_read() {
        let mut plan = Plan { is_read_only: true, ..Plan::default() };

        assert_eq!(plan.judge(Operation::Read), Verdict::Goes);
        assert_eq!(plan.judge(Operation::Write), Verdict::ReadOnly);
    }
}
