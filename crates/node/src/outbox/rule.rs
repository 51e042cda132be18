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

/// A relay that does not know what it took less than this ago is asked once more: its 200 and our question may have
/// crossed.
const CROSSING: Duration = Duration::from_secs(2);

/// What a relay without a receipt keeps at least: none offers less.
const KEPT_MIN: Duration = Duration::from_secs(3600);

/// What is known of a destination with copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outlook {
    /// When the oldest copy was left.
    pub(crate) oldest_at: Timestamp,
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
    /// Until when no other is made, unless the destination comes back before.
    pub(crate) until: Timestamp,
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
    let ripe_at = outlook.oldest_at.after(confirm_wait);
    let is_wanted = outlook.wanted == Wanted::Some;
    let is_back = |failed: &Failed| outlook.online_since.is_some_and(|since| since > failed.at);
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

/// When to look for a destination again that did not answer so many times.
pub(crate) fn look_again(failures: u32, now: Timestamp, random: f64) -> Timestamp {
    now.after(backoff(failures, LOOK_FIRST, LOOK_MAX, random))
}

/// What a relay's answer says of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HolderStep {
    /// It waits there.
    Holds,
    /// Its recipient has it, and is to confirm it.
    Collected,
    /// Ask again soon.
    AskAgain,
    /// The relay does not have it.
    Lost(Blame),
}

/// Whether a loss speaks against the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// It should still have it.
    Relays,
    /// It said that it keeps it no longer than until now.
    Nobodys,
}

/// What `state` says of what the relay took at `since`, to keep it until `expires_at` by its receipt.
pub(crate) fn holder_step(
    state: LeftState,
    since: Timestamp,
    expires_at: Option<Timestamp>,
    now: Timestamp,
) -> HolderStep {
    match state {
        LeftState::Held => HolderStep::Holds,
        LeftState::Gone => HolderStep::Collected,
        LeftState::Unknown if now < since.after(CROSSING) => HolderStep::AskAgain,
        LeftState::Unknown if now < expires_at.unwrap_or(since.after(KEPT_MIN)) => {
            HolderStep::Lost(Blame::Relays)
        }
        LeftState::Unknown => HolderStep::Lost(Blame::Nobodys),
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
        Outlook { oldest_at: at(oldest_at), wanted: Wanted::None, online_since, failed: None }
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
        let failed = Some(Failed { at: at(910), until: at(960) });
        let looked = Outlook { failed, ..silent };
        assert_eq!(next_step(&looked, WAIT, at(911)), Step::Wait(at(960)));
        assert_eq!(next_step(&looked, WAIT, at(960)), Step::Look);
        let busy = Outlook { failed, ..wanted };
        assert_eq!(next_step(&busy, WAIT, at(911)), Step::Wait(at(960)));
        let back = Outlook { online_since: Some(at(920)), ..busy };
        assert_eq!(next_step(&back, WAIT, at(921)), Step::Send { left_by: None });
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
            now = look_again(looks, now, 0.5);
        }
        assert!((20..45).contains(&looks), "{looks}");
    }

    #[test]
    fn an_expired_transaction_speaks_against_nobody() {
        let step = |state, expires_at: Option<u64>, now| {
            holder_step(state, at(0), expires_at.map(at), at(now))
        };
        assert_eq!(step(LeftState::Held, None, 5), HolderStep::Holds);
        assert_eq!(step(LeftState::Gone, None, 5), HolderStep::Collected);
        assert_eq!(step(LeftState::Unknown, Some(9000), 1), HolderStep::AskAgain);
        assert_eq!(step(LeftState::Unknown, Some(9000), 8000), HolderStep::Lost(Blame::Relays));
        assert_eq!(step(LeftState::Unknown, Some(9000), 9000), HolderStep::Lost(Blame::Nobodys));
        assert_eq!(step(LeftState::Unknown, None, 600), HolderStep::Lost(Blame::Relays));
        assert_eq!(step(LeftState::Unknown, None, 3600), HolderStep::Lost(Blame::Nobodys));
    }

    proptest! {
        #[test]
        fn nothing_is_sent_before_its_time_and_no_wait_ends_in_the_past(
            oldest_at in 0..10_000u64, online in prop::option::of(0..10_000u64), wanted: bool,
            failed in prop::option::of((0..10_000u64, 0..10_000u64)), now in 0..20_000u64,
        ) {
            let wanted = if wanted { Wanted::Some } else { Wanted::None };
            let failed = failed.map(|(failed, until)| Failed { at: at(failed), until: at(until) });
            let outlook = Outlook { wanted, failed, ..outlook(oldest_at, online) };
            match next_step(&outlook, WAIT, at(now)) {
                Step::Wait(until) => prop_assert!(until > at(now)),
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
