//! One mailbox's part of a history, sorted by what it is about.

use std::collections::BTreeMap;

use crate::allowance::Allowance;
use crate::check::observation::Observation;
use crate::history::{Acknowledged, Answer, Call, Deposit, Key, Op, Tick};

/// Whether a call had its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Certain,
    Possible,
    None,
}

/// A deposit, an acknowledgement: what has an effect, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deed<T> {
    pub(super) what: T,
    pub(super) call: usize,
    pub(super) start: Tick,
    pub(super) end: Tick,
    pub(super) effect: Effect,
}

/// One mailbox's part.
pub(super) struct Ledger<'a> {
    /// Every deposit, refused ones too.
    pub(super) left: BTreeMap<&'a Key, Vec<Deed<&'a Deposit>>>,
    /// Every acknowledgement that was not refused, by its owner.
    pub(super) acknowledged: Vec<Deed<Acknowledged>>,
    /// Everything that its owner said to have from elsewhere, in collects that were not refused.
    pub(super) had: BTreeMap<&'a Key, Vec<Deed<()>>>,
    /// Every collect of its owner that was answered.
    pub(super) observations: Vec<Observation<'a>>,
}

impl<'a> Ledger<'a> {
    pub(super) fn of(calls: &[&'a Call], allowance: &Allowance) -> Self {
        let mut ledger = Self {
            left: BTreeMap::new(),
            acknowledged: Vec::new(),
            had: BTreeMap::new(),
            observations: Vec::new(),
        };
        for call in calls {
            ledger.add(call, effect(call, allowance));
            ledger.add_had(call, effect_of_having(call, allowance));
        }
        let largest = ledger.left.values().flatten().map(|deed| deed.what.bytes).max();
        for observation in &mut ledger.observations {
            observation.judge_completeness(largest.unwrap_or(0));
        }
        ledger
    }

    fn add(&mut self, call: &'a Call, effect: Effect) {
        if let Op::Deposit(deposit) = &call.op {
            self.left.entry(&deposit.key).or_default().push(deed(deposit, call, effect));
            return;
        }
        // A stranger's call has no effect here, whatever it was answered.
        if call.mailbox() != Some(&call.caller) {
            return;
        }
        if effect != Effect::None {
            let acknowledged = call.acknowledgements().into_iter();
            self.acknowledged.extend(acknowledged.map(|one| deed(one, call, effect)));
        }
        self.observations.extend(Observation::of(call));
    }

    fn add_had(&mut self, call: &'a Call, effect: Effect) {
        if effect != Effect::None {
            for key in call.had() {
                self.had.entry(key).or_default().push(deed((), call, effect));
            }
        }
    }
}

fn deed<T>(what: T, call: &Call, effect: Effect) -> Deed<T> {
    Deed { what, call: call.number, start: call.start, end: call.end, effect }
}

fn effect(call: &Call, allowance: &Allowance) -> Effect {
    match &call.answer {
        Answer::Deposited | Answer::Collected(_) => Effect::Certain,
        Answer::Lost | Answer::Unreadable(_) => Effect::Possible,
        Answer::Refused(status) if allowance.may_have_had_effect(*status) => Effect::Possible,
        // A collect acknowledges first, and may fail behind that.
        Answer::Refused(500..) if !matches!(call.op, Op::Deposit(_)) => Effect::Possible,
        Answer::Refused(_) => Effect::None,
    }
}

/// What a relay can't do of it never makes a collect fail, so that an answer says nothing where the disk may fail or envelopes
/// are damaged.
fn effect_of_having(call: &Call, allowance: &Allowance) -> Effect {
    match effect(call, allowance) {
        Effect::Certain if !allowance.trusts_every_write(&call.caller) => Effect::Possible,
        effect => effect,
    }
}
