//! Decides what to ask a relay next: from where on, how much, what to acknowledge, whether to wait.
//!
//! Pure: what the relay answered and the time come in, the next request comes out. The next one may be on its way while
//! the last answer is worked off.

use std::collections::VecDeque;
use std::time::Duration;

use restante_federation_proto::Timestamp;
use restante_relay_api::limits::ACKNOWLEDGEMENTS_MAX;
use restante_relay_api::{CollectAcknowledgement, MailDigest};
use tokio::time::Instant;

use super::pace::{Gave, Pace};

/// With so many acknowledgements that a relay does not take it is asked for no more mail until it does: it may make up mail
/// without end, and each waits here in memory.
const UNACKNOWLEDGED_MAX: usize = 4 * ACKNOWLEDGEMENTS_MAX;

/// No mail comes after this: ids are at most 2^53 - 1.
const AFTER_ALL: u64 = (1 << 53) - 1;

/// Where collecting from one relay stands.
#[derive(Debug)]
pub(super) struct Course {
    after: u64,
    /// What is durable here and not yet acknowledged there.
    acknowledge: VecDeque<CollectAcknowledgement>,
    swept_at: Instant,
    drained: bool,
    backlog: Backlog,
    pace: Pace,
    /// Losses up to this time are durable here, and the relay does not know it yet.
    heard_until: Option<Timestamp>,
}

/// Whether more waits at the relay than one answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backlog {
    Unknown,
    Some,
    None,
}

/// What to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    /// Only entries above this id.
    pub(super) after: u64,
    /// Envelopes at most.
    pub(super) envelopes_max: u64,
    /// Bytes at most.
    pub(super) bytes_max: u64,
    /// What the relay may drop.
    pub(super) acknowledge: Vec<CollectAcknowledgement>,
    /// What came from other relays.
    pub(super) have: Vec<MailDigest>,
    /// Losses up to this time need not be told again.
    pub(super) heard_until: Option<Timestamp>,
    /// Whether the relay should wait for mail.
    pub(super) waits: bool,
}

impl Ask {
    /// Whether it asks for mail, and not only what waits.
    pub(super) fn takes_mail(&self) -> bool {
        self.after < AFTER_ALL
    }
}

/// What an answer held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Given {
    /// The highest id in it; `None` for an empty answer.
    pub(super) last: Option<u64>,
    /// Envelopes in it.
    pub(super) envelopes: u64,
    /// Envelopes in the mailbox, by the relay's word, with those of the answer.
    pub(super) queued: u64,
    /// How long it took, the relay's waiting for mail included.
    pub(super) took: Duration,
}

impl Course {
    /// From the beginning of the mailbox.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            after: 0,
            acknowledge: VecDeque::new(),
            swept_at: now,
            drained: false,
            backlog: Backlog::Unknown,
            pace: Pace::first(),
            heard_until: None,
        }
    }

    /// What to ask next. After `safety_interval` the mailbox is swept from its beginning, because mail may have been
    /// left there: for want of room, or because an acknowledgement was lost.
    pub(super) fn next(&mut self, safety_interval: Duration, now: Instant) -> Ask {
        if self.is_laden() {
            return self.errand();
        }
        if self.drained && now.duration_since(self.swept_at) >= safety_interval {
            (self.after, self.swept_at, self.drained) = (0, now, false);
        }
        let acknowledge: Vec<_> =
            self.acknowledge.iter().take(ACKNOWLEDGEMENTS_MAX).cloned().collect();
        let waits = self.drained && acknowledge.is_empty();
        Ask {
            after: self.after,
            envelopes_max: self.pace.envelopes(),
            bytes_max: self.pace.bytes(),
            acknowledge,
            have: Vec::new(),
            heard_until: self.heard_until,
            waits,
        }
    }

    /// What to ask while the answer that ends at `last` is on its way. What is durable is acknowledged beside it.
    pub(super) fn ahead(&self, last: u64) -> Ask {
        Ask {
            after: last,
            envelopes_max: self.pace.envelopes(),
            bytes_max: self.pace.bytes(),
            acknowledge: Vec::new(),
            have: Vec::new(),
            heard_until: self.heard_until,
            waits: false,
        }
    }

    /// What is durable and not acknowledged yet, and what waits, but no mail.
    pub(super) fn errand(&self) -> Ask {
        let acknowledge = self.acknowledge.iter().take(ACKNOWLEDGEMENTS_MAX).cloned().collect();
        Ask {
            after: AFTER_ALL,
            envelopes_max: 1,
            bytes_max: 1,
            acknowledge,
            have: Vec::new(),
            heard_until: self.heard_until,
            waits: false,
        }
    }

    /// Whether more may wait than one answer holds: that is asked for in turn with other relays.
    pub(super) fn has_backlog(&self) -> bool {
        !self.drained && self.backlog != Backlog::None
    }

    /// Whether the relay has to take acknowledgements before it is asked for more mail.
    pub(super) fn is_laden(&self) -> bool {
        self.acknowledge.len() >= UNACKNOWLEDGED_MAX
    }

    /// Whether the relay has not said yet what waits.
    pub(super) fn is_unknown(&self) -> bool {
        self.backlog == Backlog::Unknown
    }

    /// What the last answer told of losses is durable up to `until`; `None` if it told nothing, or nothing could be kept.
    pub(super) fn heard(&mut self, until: Option<Timestamp>) {
        self.heard_until = until;
    }

    /// The relay answered `ask`. Whether nothing is left there above the cursor.
    pub(super) fn answered(&mut self, ask: &Ask, given: Given) -> bool {
        self.acknowledge.drain(..ask.acknowledge.len().min(self.acknowledge.len()));
        // What was given before and is not acknowledged yet is counted as well.
        let known = given.envelopes.saturating_add(self.acknowledge.len() as u64);
        let waits_there = given.queued > known;
        self.backlog = if waits_there { Backlog::Some } else { Backlog::None };
        if !ask.takes_mail() {
            self.drained |= given.queued == 0;
            return self.drained;
        }
        self.drained = given.last.is_none();
        self.after = given.last.unwrap_or(ask.after).max(self.after);
        if !ask.waits {
            let gave = if waits_there { Gave::APart } else { Gave::All };
            self.pace = self.pace.after(given.took, gave);
        }
        self.drained
    }

    /// What the relay gave is worked off: this is durable here.
    pub(super) fn durable(&mut self, durable: Vec<CollectAcknowledgement>) {
        self.acknowledge.extend(durable);
    }

    /// What the relay gave to `ask` could not be kept: it is asked for again.
    pub(super) fn turn_back(&mut self, ask: &Ask) {
        self.after = self.after.min(ask.after);
        self.drained = false;
        self.backlog = Backlog::Some;
    }

    /// There was no answer.
    pub(super) fn broke_off(&mut self) {
        self.pace = self.pace.slower();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(300);

    fn acknowledgement(id: u64) -> CollectAcknowledgement {
        CollectAcknowledgement { id, sha256: None }
    }

    /// An answer of one envelope or none, with so many beside it in the mailbox.
    fn given(last: Option<u64>, beside: u64) -> Given {
        let envelopes = u64::from(last.is_some());
        Given { last, envelopes, queued: envelopes + beside, took: Duration::ZERO }
    }

    #[test]
    fn the_first_question_does_not_wait_and_the_first_empty_answer_starts_waiting() {
        let now = Instant::now();
        let mut course = Course::new(now);
        let ask = course.next(INTERVAL, now);
        assert_eq!((ask.after, ask.waits, ask.takes_mail()), (0, false, true));
        assert!(course.answered(&ask, given(None, 0)));
        assert!(course.next(INTERVAL, now).waits);
    }

    #[test]
    fn a_relay_that_takes_no_acknowledgements_is_asked_for_no_more_mail() {
        let now = Instant::now();
        let mut course = Course::new(now);
        course.durable((1..UNACKNOWLEDGED_MAX as u64).map(acknowledgement).collect());
        assert!(course.next(INTERVAL, now).takes_mail() && !course.is_laden());
        course.durable(vec![acknowledgement(UNACKNOWLEDGED_MAX as u64)]);
        let ask = course.next(INTERVAL, now);
        assert!(!ask.takes_mail() && course.is_laden());
        course.answered(&ask, given(None, 9));
        assert!(course.next(INTERVAL, now).takes_mail());
    }

    #[test]
    fn what_is_durable_is_acknowledged_at_once_and_until_the_relay_answers() {
        let now = Instant::now();
        let mut course = Course::new(now);
        let ask = course.next(INTERVAL, now);
        course.answered(&ask, given(Some(9), 0));
        course.durable(vec![acknowledgement(9)]);
        let ask = course.next(INTERVAL, now);
        assert_eq!((ask.after, ask.waits), (9, false));
        assert_eq!(ask.acknowledge, [acknowledgement(9)]);
        // No answer: the same is asked again.
        course.broke_off();
        assert_eq!(course.next(INTERVAL, now).acknowledge, [acknowledgement(9)]);
        course.answered(&ask, given(None, 0));
        assert_eq!(course.next(INTERVAL, now).acknowledge, []);
    }

    #[test]
    fn the_mailbox_is_swept_from_its_beginning_now_and_then() {
        let now = Instant::now();
        let mut course = Course::new(now);
        let ask = course.next(INTERVAL, now);
        course.answered(&ask, given(Some(9), 0));
        let ask = course.next(INTERVAL, now);
        course.answered(&ask, given(None, 0));
        assert_eq!(course.next(INTERVAL, now).after, 9);
        let ask = course.next(INTERVAL, now + INTERVAL);
        assert_eq!((ask.after, ask.waits), (0, false));
    }

    #[test]
    fn there_is_a_backlog_until_the_relay_says_that_there_is_none() {
        let now = Instant::now();
        let mut course = Course::new(now);
        assert!(course.has_backlog() && course.is_unknown());
        let errand = course.errand();
        assert!(!errand.takes_mail());
        assert!(!course.answered(&errand, given(None, 5)));
        assert!(course.has_backlog() && !course.is_unknown());
        let ask = course.next(INTERVAL, now);
        assert_eq!(ask.after, 0, "an errand moves no cursor");
        course.answered(&ask, given(Some(7), 1));
        assert!(course.has_backlog());
        course.durable(vec![acknowledgement(7)]);
        // The next was asked for before the last one was acknowledged, and so the mailbox still holds both.
        let ahead = Ask { acknowledge: vec![], ..course.next(INTERVAL, now) };
        course.answered(&ahead, given(Some(8), 1));
        assert!(!course.has_backlog());
    }

    #[test]
    fn an_empty_mailbox_is_waited_at_without_having_been_asked_for_mail() {
        let now = Instant::now();
        let mut course = Course::new(now);
        assert!(course.answered(&course.errand(), given(None, 0)));
        let ask = course.next(INTERVAL, now);
        assert_eq!((ask.after, ask.waits), (0, true));
        assert!(!course.has_backlog());
    }

    #[test]
    fn what_could_not_be_kept_is_asked_for_again() {
        let now = Instant::now();
        let mut course = Course::new(now);
        let ask = course.next(INTERVAL, now);
        course.answered(&ask, given(Some(9), 3));
        course.turn_back(&ask);
        assert_eq!(course.next(INTERVAL, now).after, 0);
    }

    #[test]
    fn how_much_is_asked_for_goes_by_how_long_answers_take_and_not_by_how_long_mail_is_waited_for()
    {
        let now = Instant::now();
        let mut course = Course::new(now);
        let first = course.next(INTERVAL, now);
        course.answered(&first, Given { took: Duration::from_secs(1), ..given(Some(1), 900) });
        let second = course.next(INTERVAL, now);
        assert!(second.envelopes_max > first.envelopes_max && second.bytes_max > first.bytes_max);
        course.answered(&second, Given { took: Duration::from_secs(6), ..given(Some(2), 900) });
        assert_eq!(course.next(INTERVAL, now).envelopes_max, first.envelopes_max);
        let waiting = Ask { waits: true, ..course.next(INTERVAL, now) };
        course.answered(&waiting, Given { took: Duration::from_secs(30), ..given(Some(3), 900) });
        assert_eq!(course.next(INTERVAL, now).envelopes_max, first.envelopes_max);
        course.broke_off();
        assert!(course.next(INTERVAL, now).envelopes_max < first.envelopes_max);
    }

    /// What befalls an answer.
    #[derive(Debug, Clone, Copy)]
    enum Fate {
        Kept,
        /// It does not come.
        Lost,
        /// It can't be kept.
        TurnedBack,
    }

    /// Where a relay says that an answer ends, before it has come.
    #[derive(Debug, Clone, Copy)]
    enum Announces {
        Nothing,
        ItsEnd,
        Another,
    }

    fn announces() -> impl Strategy<Value = Announces> {
        prop_oneof![Just(Announces::Nothing), Just(Announces::ItsEnd), Just(Announces::Another)]
    }

    fn fate() -> impl Strategy<Value = Fate> {
        prop_oneof![3 => Just(Fate::Kept), 1 => Just(Fate::Lost), 1 => Just(Fate::TurnedBack)]
    }

    proptest! {
        /// A relay with any mailbox, some of whose answers are lost or can't be kept, is emptied of what is taken, and every
        /// entry is seen, with the next request on its way before the last answer
        /// is worked off, and acknowledgements beside it.
        #[test]
        fn every_entry_is_seen_and_what_is_durable_leaves_the_relay(
            entries in proptest::collection::btree_set(1u64..1000, 0..40),
            fates in proptest::collection::vec(fate(), 0..200),
            refused in proptest::collection::btree_set(1u64..1000, 0..10),
            announced in proptest::collection::vec(announces(), 0..200),
            page in 1usize..7,
        ) {
            let mut announced = announced.into_iter();
            let now = Instant::now();
            let mut course = Course::new(now);
            let mut mailbox = entries.clone();
            let mut seen = BTreeSet::new();
            let mut fates = fates.into_iter().chain(std::iter::repeat(Fate::Kept));
            let mut ahead: Option<Ask> = None;
            loop {
                let ask = ahead.take().unwrap_or_else(|| course.next(INTERVAL, now));
                // The next part may be asked for before this one has come, by a relay's word that is not always true.
                let announced = announced.next().unwrap_or(Announces::Nothing);
                if ask.waits {
                    break;
                }
                for acknowledged in &ask.acknowledge {
                    mailbox.remove(&acknowledged.id);
                }
                let batch: Vec<u64> =
                    mailbox.iter().copied().filter(|id| *id > ask.after).take(page).collect();
                let fate = fates.next();
                if matches!(fate, Some(Fate::Lost)) {
                    course.broke_off();
                    continue;
                }
                let (envelopes, queued) = (batch.len() as u64, mailbox.len() as u64);
                let last = batch.last().copied();
                let behind = match announced {
                    Announces::ItsEnd => last.map(|last| course.ahead(last)),
                    Announces::Another => last.map(|last| course.ahead(last + 7)),
                    Announces::Nothing => None,
                };
                course.answered(&ask, Given { last, envelopes, queued, took: Duration::ZERO });
                if let Some(behind) = behind.filter(|behind| Some(behind.after) == last) {
                    ahead = Some(behind);
                } else if last.is_some() && course.has_backlog() {
                    let ask = course.next(INTERVAL, now);
                    ahead = Some(Ask { acknowledge: Vec::new(), ..ask });
                }
                if matches!(fate, Some(Fate::TurnedBack)) {
                    course.turn_back(&ask);
                    ahead = None;
                    continue;
                }
                seen.extend(batch.iter().copied());
                let durable = batch.iter().filter(|id| !refused.contains(id));
                course.durable(durable.map(|id| acknowledgement(*id)).collect());
                if ahead.is_some() {
                    let errand = course.errand();
                    for acknowledged in &errand.acknowledge {
                        mailbox.remove(&acknowledged.id);
                    }
                    if !matches!(fates.next(), Some(Fate::Lost)) {
                        let queued = mailbox.len() as u64;
                        let took = Duration::ZERO;
                        let given = Given { last: None, envelopes: 0, queued, took };
                        course.answered(&errand, given);
                    }
                }
            }
            prop_assert_eq!(&seen, &entries);
            let left: BTreeSet<u64> = entries.intersection(&refused).copied().collect();
            prop_assert_eq!(mailbox, left);
        }
    }
}
