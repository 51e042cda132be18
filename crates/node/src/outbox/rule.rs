//! Decides what becomes of copies that are not known to have arrived: wait, find out, send them directly, leave them again.
//!
//! Pure: the caller passes the time. A recipient without a node never confirms, so what its relays hold is sent directly
//! as well, once it has been there for a while; a recipient with a node knows its mail by itself and takes it once.

use std::time::Duration;

use restante_federation_proto::Timestamp;
use restante_relay_api::LeftState;

use crate::backoff::backoff;

/// The wait before a silent destination is looked for again, doubled each time, ...
const LOOK_FIRST: Duration = Duration::from_secs(60);

/// ... up to this: some thirty requests a day to a server that stays dark.
const LOOK_MAX: Duration = Duration::from_secs(3600);

/// The longest wait after a destination refused a copy: others may be taken, and each refusal is one copy's.
const REFUSED_MAX: Duration = Duration::from_secs(300);

/// A copy that was sent in vain so often stands back for those behind it, ...
const STANDS_BACK_AFTER: u32 = 3;

/// ... and one that was refused at once, first for this long: whoever lacks our key for a moment has it then, and the
/// destination is tried before that, ...
const BACK_FIRST: Duration = Duration::from_secs(3600);

/// ... and none for longer.
const BACK_MAX: Duration = Duration::from_secs(24 * 3600);

/// By how much a relay's clock and ours may differ at the end of the time that it named.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// A relay that does not know what it took less than this ago is asked once more: its 200 and our question may have
/// crossed.
const CROSSING: Duration = Duration::from_secs(2);

/// What a relay without a receipt keeps at least: none offers less.
const KEPT_MIN: Duration = Duration::from_secs(3600);

/// What a relay took so long before its recipient missed it was there when the recipient emptied it: holes are reported once all own
/// relays were asked, a minute after they are noticed.
const MISSED_AFTER: Duration = Duration::from_secs(600);

/// How long a relay has to hand over what is missed: its recipient may ask for it at the next sweep.
const HANDED_OVER_WITHIN: Duration = Duration::from_secs(600);

/// What is known of a destination with copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outlook {
    /// When the oldest copy was left of those that may be sent.
    pub(crate) oldest_at: Option<Timestamp>,
    /// Whether copies are due before their time: nobody is known to hold them, or they are missed.
    pub(crate) wanted: Wanted,
    /// Since when the destination answers us, if it does.
    pub(crate) online_since: Option<Timestamp>,
    /// When the last try failed, if one did, and until when no other is made.
    pub(crate) failed: Option<Failed>,
}

/// A try that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed {
    /// When.
    pub(crate) at: Timestamp,
    /// Until when no other is made.
    pub(crate) until: Timestamp,
    /// What it was that failed.
    pub(crate) what: Failure,
}

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The destination did not answer: it is tried again as soon as it does.
    Silence,
    /// It did not take a copy: that other mail gets through is no reason to try again.
    Copy,
    /// It refused a copy.
    Refusal,
}

/// Why a copy was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotSent {
    /// The destination did not answer, or failed.
    Failed,
    /// It refused it, for a reason that may pass.
    Refused,
    /// It refuses what is in it.
    Unfit,
}

/// Whether copies are due at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Some are.
    Some,
    /// None.
    None,
}

/// What to do for a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing before this time.
    Wait(Timestamp),
    /// Nothing before a copy may be sent.
    Rest,
    /// Find out whether it answers.
    Look,
    /// Send what is wanted, and what was left at this time or before.
    Send {
        /// Nothing but what is wanted, without.
        left_by: Option<Timestamp>,
    },
}

/// The next step at `now`; who has not confirmed for `confirm_wait` is not waited for any longer.
pub(crate) fn next_step(outlook: &Outlook, confirm_wait: Duration, now: Timestamp) -> Step {
    let Some(oldest_at) = outlook.oldest_at else { return Step::Rest };
    let ripe_at = oldest_at.after(confirm_wait);
    let is_wanted = outlook.wanted == Wanted::Some;
    let is_back = |failed: &Failed| {
        failed.what == Failure::Silence
            && outlook.online_since.is_some_and(|since| since > failed.at)
    };
    if let Some(failed) = outlook.failed.filter(|failed| !is_back(failed) && failed.until > now) {
        return Step::Wait(failed.until);
    }
    match outlook.online_since {
        Some(since) => {
            let due_at = ripe_at.max(since.after(confirm_wait));
            match (due_at <= now, is_wanted) {
                (true, _) => Step::Send { left_by: Some(now.before(confirm_wait)) },
                (false, true) => Step::Send { left_by: None },
                (false, false) => Step::Wait(due_at),
            }
        }
        None => {
            let due_at = if is_wanted { now } else { ripe_at };
            if due_at <= now { Step::Look } else { Step::Wait(due_at) }
        }
    }
}

/// When to look for a destination again that did not answer, or take what it was sent, so many times.
pub(crate) fn look_again(what: Failure, failures: u32, now: Timestamp, random: f64) -> Timestamp {
    let max = if what == Failure::Refusal { REFUSED_MAX } else { LOOK_MAX };
    now.after(backoff(failures, LOOK_FIRST, max, random))
}

/// Until when a copy stands back that was sent in vain so many times; without, it keeps its place.
pub(crate) fn send_after(
    why: NotSent,
    failures: u32,
    now: Timestamp,
    random: f64,
) -> Option<Timestamp> {
    let wait = match why {
        NotSent::Failed if failures < STANDS_BACK_AFTER => return None,
        NotSent::Failed => backoff(failures - STANDS_BACK_AFTER + 1, BACK_FIRST, BACK_MAX, random),
        NotSent::Refused => backoff(failures, BACK_FIRST, BACK_MAX, random),
        NotSent::Unfit => BACK_MAX,
    };
    Some(now.after(wait))
}

/// What a relay's answer says of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HolderStep {
    /// It waits there.
    Holds,
    /// It says so, and its recipient did not get it there.
    Withholds,
    /// Its recipient has it, and is to confirm it.
    Collected,
    /// Ask again soon.
    AskAgain,
    /// The relay does not have it.
    Lost(Blame),
    /// The relay kept it for as long as it said in its receipt: nobody wants it to lie at relays for longer.
    RanOut,
}

/// Whether a loss speaks against the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// It should still have it.
    Relays,
    /// It gave no receipt, and may keep nothing for so long.
    Nobodys,
}

/// What is known of a transaction that a relay took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    /// When.
    pub(crate) since: Timestamp,
    /// Until when it keeps it, by its receipt.
    pub(crate) expires_at: Option<Timestamp>,
    /// When its recipient, whose relay it is, said that it never came.
    pub(crate) missed_at: Option<Timestamp>,
}

/// What `state` says of what a relay took.
pub(crate) fn holder_step(
    state: LeftState,
    Taken { since, expires_at, missed_at }: Taken,
    now: Timestamp,
) -> HolderStep {
    let is_withheld = |missed_at: Timestamp| {
        since.after(MISSED_AFTER) <= missed_at && missed_at.after(HANDED_OVER_WITHIN) <= now
    };
    match state {
        LeftState::Held if missed_at.is_some_and(is_withheld) => HolderStep::Withholds,
        LeftState::Held => HolderStep::Holds,
        LeftState::Gone => HolderStep::Collected,
        LeftState::Unknown if now < since.after(CROSSING) => HolderStep::AskAgain,
        LeftState::Unknown => {
            // A receipt that ends at once is no excuse.
            let floor = since.after(KEPT_MIN);
            let kept_until = expires_at.map_or(floor, |expires_at| expires_at.max(floor));
            match expires_at {
                _ if now.after(CLOCK_TOLERANCE) < kept_until => HolderStep::Lost(Blame::Relays),
                Some(_) => HolderStep::RanOut,
                None => HolderStep::Lost(Blame::Nobodys),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WAIT: Duration = Duration::from_secs(600);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + seconds * 1000)
    }

    fn outlook(oldest_at: u64, online_since: Option<u64>) -> Outlook {
        let online_since = online_since.map(at);
        Outlook { oldest_at: Some(at(oldest_at)), wanted: Wanted::None, online_since, failed: None }
    }

    #[test]
    fn who_is_back_has_time_to_collect_and_confirm() {
        assert_eq!(next_step(&outlook(0, Some(900)), WAIT, at(1000)), Step::Wait(at(1500)));
        assert_eq!(next_step(&outlook(950, Some(0)), WAIT, at(1000)), Step::Wait(at(1550)));
        let due = Step::Send { left_by: Some(at(900)) };
        assert_eq!(next_step(&outlook(0, Some(900)), WAIT, at(1500)), due);
    }

    #[test]
    fn what_is_missed_is_due_at_once() {
        let wanted = Outlook { wanted: Wanted::Some, ..outlook(0, Some(900)) };
        assert_eq!(next_step(&wanted, WAIT, at(901)), Step::Send { left_by: None });
        let silent = Outlook { online_since: None, ..wanted };
        assert_eq!(next_step(&silent, WAIT, at(1)), Step::Look);
        let failed = Some(Failed { at: at(910), until: at(960), what: Failure::Silence });
        let looked = Outlook { failed, ..silent };
        assert_eq!(next_step(&looked, WAIT, at(911)), Step::Wait(at(960)));
        assert_eq!(next_step(&looked, WAIT, at(960)), Step::Look);
        let busy = Outlook { failed, ..wanted };
        assert_eq!(next_step(&busy, WAIT, at(911)), Step::Wait(at(960)));
        let back = Outlook { online_since: Some(at(920)), ..busy };
        assert_eq!(next_step(&back, WAIT, at(921)), Step::Send { left_by: None });
        let failed = Some(Failed { at: at(910), until: at(960), what: Failure::Copy });
        let takes_others = Outlook { failed, ..back };
        assert_eq!(next_step(&takes_others, WAIT, at(921)), Step::Wait(at(960)));
    }

    #[test]
    fn a_copy_that_is_never_taken_stands_back_for_longer_each_time_and_at_once_if_it_is_refused() {
        let after = |why, failures| send_after(why, failures, at(0), 1.0);
        assert_eq!(after(NotSent::Failed, 2), None);
        assert_eq!(after(NotSent::Failed, 3), Some(at(3600)));
        assert_eq!(after(NotSent::Failed, 4), Some(at(7200)));
        assert_eq!(after(NotSent::Refused, 1), Some(at(3600)));
        assert_eq!(after(NotSent::Refused, 99), Some(at(24 * 3600)));
        assert_eq!(after(NotSent::Unfit, 1), Some(at(24 * 3600)));
        let rests = Outlook { oldest_at: None, ..outlook(0, Some(0)) };
        assert_eq!(next_step(&rests, WAIT, at(10_000)), Step::Rest);
    }

    #[test]
    fn nobody_looks_for_a_silent_destination_before_there_is_anything_to_send() {
        assert_eq!(next_step(&outlook(0, None), WAIT, at(10)), Step::Wait(at(600)));
        assert_eq!(next_step(&outlook(0, None), WAIT, at(600)), Step::Look);
    }

    #[test]
    fn a_destination_that_stays_dark_for_a_day_is_looked_for_some_thirty_times() {
        let (mut now, mut looks) = (at(0), 0);
        while now < at(24 * 3600) {
            looks += 1;
            now = look_again(Failure::Silence, looks, now, 0.5);
        }
        assert!((20..45).contains(&looks), "{looks}");
    }

    #[test]
    fn an_expired_transaction_speaks_against_nobody() {
        let step = |state, expires_at: Option<u64>, now| {
            let expires_at = expires_at.map(at);
            holder_step(state, Taken { since: at(0), expires_at, missed_at: None }, at(now))
        };
        assert_eq!(step(LeftState::Held, None, 5), HolderStep::Holds);
        assert_eq!(step(LeftState::Gone, None, 5), HolderStep::Collected);
        assert_eq!(step(LeftState::Unknown, Some(9000), 1), HolderStep::AskAgain);
        assert_eq!(step(LeftState::Unknown, Some(9000), 8000), HolderStep::Lost(Blame::Relays));
        assert_eq!(step(LeftState::Unknown, Some(9000), 8950), HolderStep::RanOut, "its clock");
        assert_eq!(step(LeftState::Unknown, Some(9000), 9000), HolderStep::RanOut);
        let at_once = step(LeftState::Unknown, Some(0), 600);
        assert_eq!(at_once, HolderStep::Lost(Blame::Relays), "a receipt that ends at once");
        assert_eq!(step(LeftState::Unknown, None, 600), HolderStep::Lost(Blame::Relays));
        assert_eq!(step(LeftState::Unknown, None, 3600), HolderStep::Lost(Blame::Nobodys));
    }

    #[test]
    fn a_relay_withholds_what_it_had_long_before_its_recipient_missed_it_and_has_long_after() {
        let step = |state, missed_at, now| {
            let taken = Taken { since: at(0), expires_at: None, missed_at: Some(at(missed_at)) };
            holder_step(state, taken, at(now))
        };
        assert_eq!(step(LeftState::Held, 600, 1200), HolderStep::Withholds);
        assert_eq!(step(LeftState::Held, 599, 9000), HolderStep::Holds, "it may have come later");
        assert_eq!(step(LeftState::Held, 600, 1199), HolderStep::Holds, "it may be on its way");
        assert_eq!(step(LeftState::Gone, 600, 1200), HolderStep::Collected);
    }

    fn what() -> impl Strategy<Value = Failure> {
        prop::sample::select(vec![Failure::Silence, Failure::Copy, Failure::Refusal])
    }

    proptest! {
        #[test]
        fn nothing_is_sent_before_its_time_and_no_wait_ends_in_the_past(
            oldest_at in 0..10_000u64, online in prop::option::of(0..10_000u64), wanted: bool,
            failed in prop::option::of((0..10_000u64, 0..10_000u64, what())), now in 0..20_000u64,
        ) {
            let wanted = if wanted { Wanted::Some } else { Wanted::None };
            let failed = failed.map(|(failed, until, what)| Failed { at: at(failed), until: at(until), what });
            let outlook = Outlook { wanted, failed, ..outlook(oldest_at, online) };
            match next_step(&outlook, WAIT, at(now)) {
                Step::Wait(until) => prop_assert!(until > at(now)),
                Step::Rest => prop_assert!(false, "there is a copy"),
                Step::Look => prop_assert!(online.is_none()),
                Step::Send { left_by: Some(left_by) } => {
                    prop_assert!(left_by.after(WAIT) <= at(now));
                    prop_assert!(at(online.unwrap()).after(WAIT) <= at(now));
                    prop_assert!(at(oldest_at) <= left_by, "something is due");
                }
                Step::Send { left_by: None } => prop_assert_eq!(wanted, Wanted::Some),
            }
        }
    }
}
