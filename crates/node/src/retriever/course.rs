//! Decides what to ask a relay next: from where on, what to acknowledge, whether to wait.
//!
//! Pure: what the relay answered and the time come in, the next request comes out.

use std::collections::VecDeque;
use std::time::Duration;

use restante_federation_proto::Timestamp;
use restante_relay_api::CollectAcknowledgement;
use restante_relay_api::limits::ACKNOWLEDGEMENTS_MAX;
use tokio::time::Instant;

/// Where collecting from one relay stands.
#[derive(Debug)]
pub(super) struct Course {
    after: u64,
    /// What is durable here and not yet acknowledged there.
    acknowledge: VecDeque<CollectAcknowledgement>,
    swept_at: Instant,
    drained: bool,
    /// Losses up to this time are durable here, and the relay does not know it yet.
    heard_until: Option<Timestamp>,
}

/// What to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    /// Only entries above this id.
    pub(super) after: u64,
    /// What the relay may drop.
    pub(super) acknowledge: Vec<CollectAcknowledgement>,
    /// Losses up to this time need not be told again.
    pub(super) heard_until: Option<Timestamp>,
    /// Whether the relay should wait for mail.
    pub(super) waits: bool,
}

/// What an answer held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    /// The highest id in it; `None` for an empty answer.
    pub(super) last: Option<u64>,
    /// What is durable here now.
    pub(super) durable: Vec<CollectAcknowledgement>,
}

impl Course {
    /// From the beginning of the mailbox.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            after: 0,
            acknowledge: VecDeque::new(),
            swept_at: now,
            drained: false,
            heard_until: None,
        }
    }

    /// What to ask next. After `safety_interval` the mailbox is swept from its beginning, because mail may have been
    /// left there: for want of room, or because an acknowledgement was lost.
    pub(super) fn next(&mut self, safety_interval: Duration, now: Instant) -> Ask {
        if self.drained && now.duration_since(self.swept_at) >= safety_interval {
            let acknowledge = std::mem::take(&mut self.acknowledge);
            *self = Self { acknowledge, heard_until: self.heard_until, ..Self::new(now) };
        }
        let acknowledge: Vec<_> =
            self.acknowledge.iter().take(ACKNOWLEDGEMENTS_MAX).cloned().collect();
        let waits = self.drained && acknowledge.is_empty();
        Ask { after: self.after, acknowledge, heard_until: self.heard_until, waits }
    }

    /// What the last answer told of losses is durable up to `until`; `None` if it told nothing, or nothing could be kept.
    pub(super) fn heard(&mut self, until: Option<Timestamp>) {
        self.heard_until = until;
    }

    /// The relay answered `ask` with `batch`, which is worked off. Whether nothing is left there above the cursor.
    pub(super) fn answered(&mut self, ask: &Ask, batch: Batch) -> bool {
        self.acknowledge.drain(..ask.acknowledge.len().min(self.acknowledge.len()));
        self.acknowledge.extend(batch.durable);
        self.drained = batch.last.is_none();
        self.after = batch.last.unwrap_or(ask.after).max(self.after);
        self.drained
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(300);

    fn acknowledgement(id: u64) -> CollectAcknowledgement {
        CollectAcknowledgement { id, sha256: None }
    }

    #[test]
    fn the_first_question_does_not_wait_and_the_first_empty_answer_starts_waiting() {
        let now = Instant::now();
        let mut course = Course::new(now);
        let ask = course.next(INTERVAL, now);
        assert_eq!(ask, Ask { after: 0, acknowledge: vec![], heard_until: None, waits: false });
        assert!(course.answered(&ask, Batch { last: None, durable: vec![] }));
        assert!(course.next(INTERVAL, now).waits);
    }

    #[test]
    fn what_is_durable_is_acknowledged_at_once_and_until_the_relay_answers() {
        let now = Instant::now();
        let mut course = Course::new(now);
        let ask = course.next(INTERVAL, now);
        course.answered(&ask, Batch { last: Some(9), durable: vec![acknowledgement(9)] });
        let ask = course.next(INTERVAL, now);
        let acknowledge = vec![acknowledgement(9)];
        let expected = Ask { after: 9, acknowledge, heard_until: None, waits: false };
        assert_eq!(ask, expected);
        // No answer: the same is asked again.
        assert_eq!(course.next(INTERVAL, now), expected);
        course.answered(&ask, Batch { last: None, durable: vec![] });
        assert_eq!(course.next(INTERVAL, now).acknowledge, []);
    }

    #[test]
    fn the_mailbox_is_swept_from_its_beginning_now_and_then() {
        let now = Instant::now();
        let mut course = Course::new(now);
        let ask = course.next(INTERVAL, now);
        course.answered(&ask, Batch { last: Some(9), durable: vec![] });
        let ask = course.next(INTERVAL, now);
        course.answered(&ask, Batch { last: None, durable: vec![] });
        assert_eq!(course.next(INTERVAL, now).after, 9);
        let ask = course.next(INTERVAL, now + INTERVAL);
        assert_eq!((ask.after, ask.waits), (0, false));
    }

    proptest! {
        /// A relay with any mailbox, some of whose answers are lost, is emptied of what is taken, and every entry is
        /// seen.
        #[test]
        fn every_entry_is_seen_and_what_is_durable_leaves_the_relay(
            entries in proptest::collection::btree_set(1u64..1000, 0..40),
            lost in proptest::collection::vec(any::<bool>(), 200),
            refused in proptest::collection::btree_set(1u64..1000, 0..10),
            page in 1usize..7,
        ) {
            let now = Instant::now();
            let mut course = Course::new(now);
            let mut mailbox = entries.clone();
            let mut seen = std::collections::BTreeSet::new();
            let mut lost = lost.into_iter();
            loop {
                let ask = course.next(INTERVAL, now);
                if ask.waits {
                    break;
                }
                for acknowledged in &ask.acknowledge {
                    mailbox.remove(&acknowledged.id);
                }
                let batch: Vec<u64> =
                    mailbox.iter().copied().filter(|id| *id > ask.after).take(page).collect();
                if lost.next() == Some(true) {
                    continue;
                }
                seen.extend(batch.iter().copied());
                let durable = batch.iter().filter(|id| !refused.contains(id));
                let durable = durable.map(|id| acknowledgement(*id)).collect();
                course.answered(&ask, Batch { last: batch.last().copied(), durable });
            }
            prop_assert_eq!(&seen, &entries);
            let left: std::collections::BTreeSet<u64> =
                entries.intersection(&refused).copied().collect();
            prop_assert_eq!(mailbox, left);
        }
    }
}
