//! Decides which envelope of an origin comes next, and whether a hole before it is waited for.
//!
//! Pure: the caller passes the heads of the origin's streams, when the relays answered, and the time.

use std::time::Duration;

use restante_federation_proto::Timestamp;

/// How long a hole in a stream is waited for when a relay does not answer: longer than a relay's restart,
/// and short beside what a user takes for a failure.
pub(crate) const HOLE_WAIT_MAX: Duration = Duration::from_secs(60);

/// An envelope's place in its origin's stream, by its waybill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The stream.
    pub(crate) stream: String,
    /// The number in it, from 1.
    pub(crate) seq: u64,
    /// When the origin's node first sent or left it.
    pub(crate) deposited_at: Timestamp,
    /// The highest number of the stream that is done with; `None` before the first.
    pub(crate) done_through: Option<u64>,
}

/// The first waiting envelope of a stream, or the first of those without a waybill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// The envelope, numbered in the order of arrival.
    pub(crate) id: i64,
    /// Its place; `None` without a waybill.
    pub(crate) place: Option<Place>,
    /// When it arrived here.
    pub(crate) arrived_at: Timestamp,
}

impl Head {
    /// Whether numbers before it never came.
    pub(crate) fn is_behind_hole(&self) -> bool {
        self.place.as_ref().is_some_and(|place| place.seq > place.expected())
    }
}

impl Place {
    /// The number that is due.
    fn expected(&self) -> u64 {
        self.done_through.map_or(1, |done| done.saturating_add(1))
    }
}

/// What the own relays have said so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RelaysHeard {
    /// When this node started.
    pub(crate) started_at: Timestamp,
    /// Every own relay was asked at this time or later, and gave all that it had; `None` while one has not since
    /// the start.
    pub(crate) all_drained_at: Option<Timestamp>,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// This envelope.
    Deliver(i64),
    /// Envelope `id` comes next, when the relays were asked for what is missing before it, or at `until`.
    WaitForHole {
        /// The envelope that waits.
        id: i64,
        /// The missing numbers, first and last; the first is unknown at first contact.
        missing: (Option<u64>, u64),
        /// When it is waited for no longer.
        until: Timestamp,
    },
    /// Nothing waits.
    Nothing,
}

/// Chooses among the heads of one origin: streams by the deposit of their head, then what has no waybill, by arrival.
pub(crate) fn next(heads: &[Head], heard: RelaysHeard, now: Timestamp) -> Next {
    let first = heads.iter().min_by_key(|head| match &head.place {
        Some(place) => (0, place.deposited_at, head.id),
        None => (1, Timestamp::EPOCH, head.id),
    });
    let Some(head) = first else { return Next::Nothing };
    let Some(place) = &head.place else { return Next::Deliver(head.id) };
    if !head.is_behind_hole() {
        return Next::Deliver(head.id);
    }
    let since = asked_since(head, place, heard, now);
    let until = since.after(HOLE_WAIT_MAX);
    if now >= until || heard.all_drained_at.is_some_and(|drained| drained >= since) {
        return Next::Deliver(head.id);
    }
    let first_missing = place.done_through.map(|done| done.saturating_add(1));
    Next::WaitForHole { id: head.id, missing: (first_missing, place.seq - 1), until }
}

/// From when on the relays must have been asked: what left a hole before this envelope was deposited before it.
fn asked_since(head: &Head, place: &Place, heard: RelaysHeard, now: Timestamp) -> Timestamp {
    // A stream that is met for the first time may begin anywhere; one answer of everybody is enough. An arrival
    // in the future was noted by a clock that was set back since, and would never pass.
    if place.done_through.is_none() || head.arrived_at > now {
        return heard.started_at.min(now);
    }
    head.arrived_at.max(heard.started_at).min(now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn placed(id: i64, seq: u64, done_through: Option<u64>, arrived: u64) -> Head {
        let place = Place { stream: "s".into(), seq, deposited_at: at(seq), done_through };
        Head { id, place: Some(place), arrived_at: at(arrived) }
    }

    fn heard(all_drained_at: Option<u64>) -> RelaysHeard {
        RelaysHeard { started_at: at(0), all_drained_at: all_drained_at.map(at) }
    }

    #[test]
    fn the_number_that_is_due_is_delivered_at_once() {
        assert_eq!(next(&[placed(9, 4, Some(3), 50)], heard(None), at(50)), Next::Deliver(9));
        assert_eq!(next(&[placed(9, 1, None, 50)], heard(None), at(50)), Next::Deliver(9));
    }

    #[test]
    fn a_hole_is_waited_for_from_the_moment_that_it_is_seen() {
        let next = next(&[placed(9, 6, Some(3), 50)], heard(Some(49)), at(50));
        assert!(matches!(next, Next::WaitForHole { id: 9, missing: (Some(4), 5), .. }), "{next:?}");
    }

    #[test]
    fn a_late_number_is_delivered_at_once() {
        assert_eq!(next(&[placed(9, 2, Some(7), 50)], heard(None), at(50)), Next::Deliver(9));
    }

    #[test]
    fn a_hole_waits_until_every_relay_was_asked_since() {
        let head = [placed(9, 6, Some(3), 50)];
        let waits = Next::WaitForHole { id: 9, missing: (Some(4), 5), until: at(60_050) };
        assert_eq!(next(&head, heard(Some(49)), at(51)), waits);
        assert_eq!(next(&head, heard(Some(50)), at(51)), Next::Deliver(9));
    }

    #[test]
    fn a_hole_is_not_waited_for_longer_than_a_minute() {
        let head = [placed(9, 6, Some(3), 50)];
        assert!(matches!(next(&head, heard(None), at(60_049)), Next::WaitForHole { .. }));
        assert_eq!(next(&head, heard(None), at(60_050)), Next::Deliver(9));
    }

    #[test]
    fn a_stream_met_for_the_first_time_waits_for_one_answer_of_every_relay() {
        let head = [placed(9, 6, None, 50)];
        let waits = Next::WaitForHole { id: 9, missing: (None, 5), until: at(60_000) };
        assert_eq!(next(&head, heard(None), at(50)), waits);
        assert_eq!(next(&head, heard(Some(1)), at(50)), Next::Deliver(9));
    }

    #[test]
    fn mail_without_a_waybill_comes_after_mail_with_one() {
        let bare = Head { id: 1, place: None, arrived_at: at(1) };
        let heads = [bare.clone(), placed(2, 1, None, 50)];
        assert_eq!(next(&heads, heard(None), at(50)), Next::Deliver(2));
        assert_eq!(next(&[bare], heard(None), at(50)), Next::Deliver(1));
    }

    #[test]
    fn the_older_stream_comes_first() {
        let mut old = placed(2, 1, None, 50);
        let mut young = placed(1, 1, None, 40);
        old.place.as_mut().unwrap().deposited_at = at(5);
        young.place.as_mut().unwrap().deposited_at = at(6);
        assert_eq!(next(&[young, old], heard(None), at(50)), Next::Deliver(2));
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_stop_the_mail() {
        let head = [placed(9, 6, Some(3), 1_000_000)];
        assert_eq!(next(&head, heard(Some(200)), at(300)), Next::Deliver(9));
    }

    /// Envelopes of one stream, each of which arrives once, at some time, from some relay.
    fn arrivals() -> impl Strategy<Value = Vec<(u64, u64)>> {
        (1u64..30).prop_flat_map(|count| {
            let times = proptest::collection::vec(0u64..200_000, count as usize);
            times.prop_map(|times| (1u64..).zip(times).collect())
        })
    }

    proptest! {
        #[test]
        fn every_envelope_is_delivered_once_and_nothing_waits_for_ever(
            arrivals in arrivals(),
            drains in proptest::collection::vec(0u64..200_000, 0..10),
        ) {
            let mut waiting: Vec<(u64, u64)> = vec![];
            let mut delivered: Vec<u64> = vec![];
            let mut done: Option<u64> = None;
            for now in (0..400_000u64).step_by(500) {
                let due = |time: u64| time <= now && time + 500 > now;
                waiting.extend(arrivals.iter().copied().filter(|(_, time)| due(*time)));
                let drained = drains.iter().copied().filter(|time| *time <= now).max();
                loop {
                    let head = waiting.iter().min().copied();
                    let heads: Vec<Head> =
                        head.iter().map(|(seq, time)| placed(*seq as i64, *seq, done, *time)).collect();
                    let Next::Deliver(id) = next(&heads, heard(drained), at(now)) else { break };
                    let seq = id as u64;
                    delivered.push(seq);
                    done = done.max(Some(seq));
                    waiting.retain(|(waiting, _)| *waiting != seq);
                }
            }
            prop_assert!(waiting.is_empty());
            let mut sorted = delivered.clone();
            sorted.sort_unstable();
            let all: Vec<u64> = arrivals.iter().map(|(seq, _)| *seq).collect();
            prop_assert_eq!(sorted, all);
        }

        #[test]
        fn what_arrives_within_the_wait_is_delivered_in_order(
            mut times in proptest::collection::vec(0u64..59_000, 1..30),
        ) {
            // The first contact waits from the start, so that all are there when the wait ends.
            let mut waiting: Vec<(u64, u64)> = (1u64..).zip(times.drain(..)).collect();
            let mut delivered = vec![];
            let mut done = None;
            for now in (0..70_000u64).step_by(500) {
                loop {
                    let head = waiting.iter().filter(|(_, time)| *time <= now).min().copied();
                    let heads: Vec<Head> =
                        head.iter().map(|(seq, time)| placed(*seq as i64, *seq, done, *time)).collect();
                    let Next::Deliver(id) = next(&heads, heard(None), at(now)) else { break };
                    delivered.push(id);
                    done = Some(id as u64);
                    waiting.retain(|(seq, _)| *seq as i64 != id);
                }
            }
            prop_assert!(waiting.is_empty());
            prop_assert!(delivered.is_sorted());
        }
    }
}
