//! Every operation of the disk fails in turn, in every way.

use crate::{Fault, Lasts, Operation, Tally, Trouble};

const KINDS: [(Operation, Trouble); 8] = [
    (Operation::Write, Trouble::Full),
    (Operation::Write, Trouble::Broken),
    (Operation::Sync, Trouble::Broken),
    (Operation::Truncate, Trouble::Full),
    (Operation::Truncate, Trouble::Broken),
    (Operation::Delete, Trouble::Broken),
    (Operation::Open, Trouble::Broken),
    (Operation::Read, Trouble::Broken),
];

/// Plays a script with its first operation of a kind failing, then its second, and so on until it ends before one
/// fails; and so for each kind of operation and failure, which goes by or stays. `play` tells in its tally how many
/// operations failed. Only every `stride`-th operation fails; `seed` says from which.
pub fn fail_in_turn(
    seed: u64,
    stride: usize,
    mut play: impl FnMut(Fault) -> Result<Tally, String>,
) -> Result<Tally, String> {
    let mut tally = Tally::default();
    let stride = stride.max(1);
    for (operation, trouble) in KINDS {
        for lasts in [Lasts::Once, Lasts::UntilHealed] {
            for number in (1 + seed % stride as u64..).step_by(stride) {
                let fault = Fault { operation: Some(operation), number, trouble, lasts };
                let played = play(fault).map_err(|story| format!("{fault:?}\n{story}"))?;
                tally += played;
                if played.faults == 0 {
                    break;
                }
            }
        }
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_fails_in_turn_until_the_script_ends_before_one_fails() {
        let mut writes = Vec::new();
        let tally = fail_in_turn(2, 2, |fault| {
            let is_write = fault.operation == Some(Operation::Write);
            if is_write && (fault.trouble, fault.lasts) == (Trouble::Full, Lasts::Once) {
                writes.push(fault.number);
            }
            let faults = u64::from(is_write && fault.number <= 6);
            Ok(Tally { faults, ..Tally::default() })
        });

        assert_eq!(writes, [1, 3, 5, 7]);
        assert_eq!(tally, Ok(Tally { faults: 12, ..Tally::default() }));
        let told = fail_in_turn(0, 1, |_| Err("the story".into())).unwrap_err();
        assert!(told.contains("Write") && told.contains("the story"), "{told}");
    }
}
