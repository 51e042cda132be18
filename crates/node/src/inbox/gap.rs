//! Decides how long a transaction waits for rooms that are not ready for it.
//!
//! Pure: the caller passes what the relays have said, and the time.

use std::time::Duration;

use restante_federation_proto::Timestamp;

use super::order::RelaysHeard;

/// What becomes of the rooms that are not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gap {
    /// The transaction waits, until then at the latest; the relays must be asked at `ask_since` or later.
    Wait {
        /// The latest time.
        until: Timestamp,
        /// From when on the relays' answers count.
        ask_since: Timestamp,
    },
    /// Their events wait apart, and the rest is delivered.
    SetAside,
}

/// Decides about a transaction that arrived at `arrived_at`. Who can still close the gap are the relays; once each of
/// them was asked since the arrival and gave all that it had, waiting helps nobody.
pub(crate) fn gap(
    arrived_at: Timestamp,
    heard: RelaysHeard,
    gap_wait: Duration,
    now: Timestamp,
) -> Gap {
    // An arrival in the future was noted by a clock that was set back since.
    let ask_since = if arrived_at > now {
        heard.started_at.min(now)
    } else {
        arrived_at.max(heard.started_at).min(now)
    };
    let until = ask_since.after(gap_wait);
    if now >= until || heard.all_drained_at.is_some_and(|drained| drained >= ask_since) {
        return Gap::SetAside;
    }
    Gap::Wait { until, ask_since }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(900);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn decided(arrived: u64, drained: Option<u64>, now: u64) -> Gap {
        let heard = RelaysHeard { started_at: at(0), all_drained_at: drained.map(at) };
        gap(at(arrived), heard, WAIT, at(now))
    }

    #[test]
    fn a_gap_is_waited_for_while_a_relay_may_close_it() {
        let waits = Gap::Wait { until: at(910), ask_since: at(10) };
        assert_eq!(decided(10, Some(9), 11), waits);
        assert_eq!(decided(10, Some(9), 10), waits, "a moment after it came as well");
        assert_eq!(decided(10, None, 909), waits);
    }

    #[test]
    fn it_is_waited_for_no_longer_when_every_relay_was_asked_since() {
        assert_eq!(decided(10, Some(10), 11), Gap::SetAside);
    }

    #[test]
    fn a_relay_that_does_not_answer_ends_the_wait_with_its_time() {
        assert_eq!(decided(10, None, 910), Gap::SetAside);
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_prolong_it() {
        assert_eq!(decided(5000, Some(1), 20), Gap::SetAside);
    }
}
