//! Decides how many events of a room may be on their way into the homeserver, and which one to look for next.
//!
//! Pure: the caller passes the time. The homeserver stages at most 100 events of a room and drops the rest without
//! a word, so that only what was looked for and found counts as stored.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use restante_federation_proto::Timestamp;

/// Events of one room that may be sent and not yet confirmed. Synapse drops beyond 100 staged ones, and other servers
/// may send into the same room meanwhile.
pub(crate) const WINDOW_MAX: usize = 40;

/// Confirming this many at once frees half of the window, so that one look serves twenty events.
const LOOK_AHEAD: usize = WINDOW_MAX / 2;

/// How long after the room's last progress an event that can't be found counts as dropped: a homeserver on a slow
/// disk takes seconds for a full window.
const DROPPED_AFTER: Duration = Duration::from_secs(60);

/// The first look: about as long as a fast homeserver takes for one event.
const LOOK_FIRST: Duration = Duration::from_millis(100);

/// Looks in vain, before it begins anew with the first event, and with longer waits.
const LOOKS_IN_TURN: u32 = 4;

/// The longest time between two looks.
const LOOK_MAX: Duration = Duration::from_secs(4);

/// Confirmed events that are remembered, so that their successors need not be asked for.
const RECENT_MAX: usize = 64;

/// An event that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    /// The event.
    pub(crate) event_id: String,
    /// What it follows.
    pub(crate) prev_events: Vec<String>,
    /// What brought it.
    pub(crate) carrier: Carrier,
}

/// What brought an event to the homeserver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// The transaction that it came in, by its row.
    Envelope(i64),
    /// The room backlog; its row there.
    Backlog(i64),
}

/// One room's window.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    /// Each with the time of the homeserver's 200.
    outstanding: VecDeque<(Sent, Timestamp)>,
    /// Events on their way in transactions that are not answered yet.
    reserved: usize,
    recent: VecDeque<String>,
    last_progress: Timestamp,
    /// How long the homeserver took for what was found last.
    took: Duration,
    looks: u32,
    look_at: Timestamp,
}

/// What a look that found nothing means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotFound {
    /// It may still come.
    MayCome,
    /// The homeserver dropped or rejected it.
    Dropped,
}

impl Window {
    /// A window with nothing in it.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            outstanding: VecDeque::new(),
            reserved: 0,
            recent: VecDeque::new(),
            last_progress: now,
            took: Duration::ZERO,
            looks: 0,
            look_at: now,
        }
    }

    /// Whether a transaction with `count` events of this room may be sent. One always may when nothing is outstanding.
    pub(crate) fn admits(&self, count: usize) -> bool {
        self.is_idle() || self.outstanding.len() + self.reserved + count <= WINDOW_MAX
    }

    /// How many more events of this room may be sent.
    pub(crate) fn places(&self) -> usize {
        WINDOW_MAX.saturating_sub(self.outstanding.len() + self.reserved)
    }

    /// `count` events are on their way.
    pub(crate) fn reserve(&mut self, count: usize) {
        self.reserved += count;
    }

    /// The transaction with these `count` events was answered.
    pub(crate) fn release(&mut self, count: usize) {
        self.reserved = self.reserved.saturating_sub(count);
    }

    /// Whether this event was delivered and is outstanding or was confirmed lately.
    pub(crate) fn delivered(&self, event_id: &str) -> bool {
        self.outstanding.iter().any(|(sent, _)| sent.event_id == event_id)
            || self.recent.iter().any(|recent| recent == event_id)
    }

    /// Whether nothing is on its way or outstanding.
    pub(crate) fn is_idle(&self) -> bool {
        self.outstanding.is_empty() && self.reserved == 0
    }

    /// The homeserver took these.
    pub(crate) fn sent(&mut self, events: impl IntoIterator<Item = Sent>, now: Timestamp) {
        if self.outstanding.is_empty() {
            self.progressed(now, Duration::ZERO);
        }
        self.outstanding.extend(events.into_iter().map(|sent| (sent, now)));
    }

    /// Which event to look for, and when: the one that frees half of the window, or the newest; after looks in vain one before
    /// it, and the oldest, because the chosen one may be the one that was dropped.
    pub(crate) fn look(&self) -> Option<(&str, Timestamp)> {
        let ahead = LOOK_AHEAD.min(self.outstanding.len());
        let index = match self.looks % LOOKS_IN_TURN {
            0 | 1 => ahead,
            2 => ahead.div_ceil(2),
            _ => ahead.min(1),
        };
        let index = index.checked_sub(1)?;
        Some((&self.outstanding[index].0.event_id, self.look_at))
    }

    /// The homeserver has `event_id`, and so what it follows: these are confirmed.
    pub(crate) fn found(&mut self, event_id: &str, now: Timestamp) -> Vec<Sent> {
        let mut found = BTreeSet::from([event_id.to_owned()]);
        // Predecessors stand before their successors, so that one pass backwards meets all.
        for (sent, _) in self.outstanding.iter().rev() {
            if found.contains(&sent.event_id) {
                found.extend(sent.prev_events.iter().cloned());
            }
        }
        let found = self.take(|sent| found.contains(&sent.event_id));
        self.progressed(now, now.since(self.last_progress));
        found
    }

    /// The homeserver left the room, and keeps nothing of it: everything is settled.
    pub(crate) fn left(&mut self, now: Timestamp) -> Vec<Sent> {
        let settled = self.take(|_| true);
        self.progressed(now, Duration::ZERO);
        settled
    }

    /// The homeserver does not have `event_id`.
    pub(crate) fn not_found(&mut self, event_id: &str, now: Timestamp) -> NotFound {
        let oldest = self.outstanding.front().filter(|(sent, _)| sent.event_id == event_id);
        let waited_since = |(_, sent_at): &(Sent, Timestamp)| self.last_progress.max(*sent_at);
        if oldest.is_some_and(|oldest| now >= waited_since(oldest).after(DROPPED_AFTER)) {
            return NotFound::Dropped;
        }
        let wait = LOOK_FIRST.max(self.took / 4);
        let wait = wait.saturating_mul(2u32.saturating_pow(self.looks / LOOKS_IN_TURN));
        self.look_at = now.after(wait.min(LOOK_MAX));
        self.looks = self.looks.saturating_add(1);
        NotFound::MayCome
    }

    /// What brought `event_id`, where it is outstanding.
    pub(crate) fn carriers(&self, event_id: &str) -> Vec<Carrier> {
        let brought = self.outstanding.iter().filter(|(sent, _)| sent.event_id == event_id);
        brought.map(|(sent, _)| sent.carrier).collect()
    }

    /// `event_id` is waited for no longer, as far as one of `carriers` brought it. It is forgotten, so that its successors are
    /// asked for.
    pub(crate) fn given_up(
        &mut self,
        event_id: &str,
        carriers: &[Carrier],
        now: Timestamp,
    ) -> Vec<Sent> {
        let given_up =
            self.take(|sent| sent.event_id == event_id && carriers.contains(&sent.carrier));
        self.recent.retain(|recent| recent != event_id);
        // No progress: what follows a dropped event was dropped as well, and need not wait anew.
        self.look_at = now;
        given_up
    }

    /// The homeserver could not be asked: that says nothing about the events.
    pub(crate) fn not_answered(&mut self, now: Timestamp) {
        self.last_progress = now;
        self.look_at = now.after(LOOK_MAX);
    }

    fn take(&mut self, chosen: impl Fn(&Sent) -> bool) -> Vec<Sent> {
        let (taken, left): (Vec<_>, Vec<_>) =
            self.outstanding.drain(..).partition(|(sent, _)| chosen(sent));
        self.outstanding = left.into();
        self.recent.extend(taken.iter().map(|(sent, _)| sent.event_id.clone()));
        let excess = self.recent.len().saturating_sub(RECENT_MAX);
        self.recent.drain(..excess);
        taken.into_iter().map(|(sent, _)| sent).collect()
    }

    /// A look costs the homeserver as much as some part of an event, so that the next one is made when half of the time has passed
    /// that the last part took.
    fn progressed(&mut self, now: Timestamp, took: Duration) {
        self.last_progress = now;
        self.took = took;
        self.looks = 0;
        self.look_at = now.after((took / 2).clamp(LOOK_FIRST, LOOK_MAX));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn chain(range: std::ops::Range<usize>) -> Vec<Sent> {
        range
            .map(|n| Sent {
                event_id: format!("${n}"),
                prev_events: n.checked_sub(1).map(|n| format!("${n}")).into_iter().collect(),
                carrier: Carrier::Envelope(n as i64),
            })
            .collect()
    }

    fn window_of(events: Vec<Sent>) -> Window {
        let mut window = Window::new(at(0));
        window.sent(events, at(0));
        window
    }

    #[test]
    fn forty_events_fit_and_one_more_waits() {
        let window = window_of(chain(0..39));
        assert!(window.admits(1));
        assert!(!window.admits(2));
    }

    #[test]
    fn events_on_their_way_take_places_as_well() {
        let mut window = Window::new(at(0));
        window.reserve(10);
        assert!(!window.is_idle() && window.places() == 30);
        window.sent(chain(0..5), at(0));
        assert_eq!(window.places(), 25);
        assert!(window.admits(25) && !window.admits(26));
        window.reserve(3);
        window.release(10);
        assert_eq!(window.places(), 32);
        window.release(10);
        assert_eq!(window.places(), 35, "what is outstanding stays");
    }

    #[test]
    fn only_what_was_sent_counts_as_delivered_until_it_is_given_up() {
        let mut window = window_of(chain(0..2));
        assert!(window.delivered("$1") && !window.delivered("$2"));
        window.found("$1", at(1));
        assert!(window.delivered("$1") && !window.delivered("$2"));
        window.given_up("$1", &[Carrier::Envelope(1)], at(2));
        assert!(window.delivered("$0") && !window.delivered("$1"));
    }

    #[test]
    fn looks_in_vain_are_made_ever_more_seldom_and_meet_the_oldest_event_in_turn() {
        let mut window = window_of(chain(0..2));
        let wait = |window: &mut Window| {
            assert_eq!(window.not_found("$1", at(0)), NotFound::MayCome);
            window.look().unwrap().1.as_millis()
        };
        let waits: Vec<u64> = (0..24).map(|_| wait(&mut window)).collect();
        let doubled = [100, 200, 400, 800, 1600, 3200].map(|wait| [wait; 4]);
        assert_eq!(waits, doubled.as_flattened());
        assert_eq!(wait(&mut window), 4000);
        let mut window = window_of(chain(0..40));
        let looked: Vec<String> = (0..5)
            .map(|_| {
                let event_id = window.look().unwrap().0.to_owned();
                window.not_found(&event_id, at(0));
                event_id
            })
            .collect();
        assert_eq!(looked, ["$19", "$19", "$9", "$0", "$19"]);
    }

    #[test]
    fn a_slow_homeserver_is_asked_less_often() {
        let mut window = window_of(chain(0..40));
        window.found("$19", at(1200));
        assert_eq!(window.look().unwrap().1, at(1800));
        window.not_found("$39", at(1800));
        assert_eq!(window.look().unwrap().1, at(2100));
    }

    #[test]
    fn one_transaction_of_any_size_goes_into_an_idle_room() {
        assert!(Window::new(at(0)).admits(50));
    }

    #[test]
    fn one_look_frees_half_of_the_window() {
        let mut window = window_of(chain(0..40));
        let (event_id, due) = window.look().map(|(id, due)| (id.to_owned(), due)).unwrap();
        assert_eq!((event_id.as_str(), due), ("$19", at(100)));
        assert_eq!(window.found("$19", at(100)).len(), 20);
        assert!(window.admits(20));
        assert!(window.delivered("$19") && window.delivered("$39"));
    }

    #[test]
    fn what_the_found_event_does_not_follow_is_not_confirmed() {
        let mut events = chain(0..3);
        events[2].prev_events = vec!["$0".to_owned()];
        let mut window = window_of(events);
        let found: Vec<_> = window.found("$2", at(1)).into_iter().map(|s| s.event_id).collect();
        assert_eq!(found, ["$0", "$2"]);
        assert_eq!(window.look().unwrap().0, "$1");
    }

    #[test]
    fn an_event_that_does_not_come_counts_as_dropped_after_a_minute_without_progress() {
        let mut window = window_of(chain(0..1));
        assert_eq!(window.not_found("$0", at(59_999)), NotFound::MayCome);
        assert_eq!(window.not_found("$0", at(60_000)), NotFound::Dropped);
        let carriers = window.carriers("$0");
        assert_eq!(window.given_up("$0", &carriers, at(60_000)).len(), 1);
        assert!(!window.delivered("$0"));
    }

    #[test]
    fn a_homeserver_that_does_not_answer_drops_nothing() {
        let mut window = window_of(chain(0..1));
        window.not_answered(at(3_600_000));
        assert_eq!(window.not_found("$0", at(3_600_001)), NotFound::MayCome);
    }

    proptest! {
        /// Whatever the homeserver dropped, every event ends found or given up, and dropped ones are never confirmed
        /// unless something that follows them was found.
        #[test]
        fn every_event_ends_confirmed_or_given_up(
            dropped in proptest::collection::vec(any::<bool>(), 1..60),
            chained in any::<bool>(),
        ) {
            let mut events = chain(0..dropped.len());
            if !chained {
                events.iter_mut().for_each(|sent| sent.prev_events.clear());
            }
            // In a chain nothing is stored after a gap.
            let gap = dropped.iter().position(|dropped| *dropped).unwrap_or(dropped.len());
            let stored = |n: usize| if chained { n < gap } else { !dropped[n] };
            let mut window = window_of(events);
            let (mut confirmed, mut given_up) = (BTreeSet::new(), BTreeSet::new());
            let mut now = at(0);
            let mut looks = 0;
            while let Some((event_id, due)) = window.look().map(|(id, due)| (id.to_owned(), due)) {
                now = now.max(due);
                looks += 1;
                prop_assert!(looks < 10_000);
                let n: usize = event_id[1..].parse().unwrap();
                if stored(n) {
                    confirmed.extend(window.found(&event_id, now).into_iter().map(|s| s.event_id));
                } else if window.not_found(&event_id, now) == NotFound::Dropped {
                    let carriers = window.carriers(&event_id);
                    let gone = window.given_up(&event_id, &carriers, now);
                    given_up.extend(gone.into_iter().map(|s| s.event_id));
                }
            }
            for n in 0..dropped.len() {
                prop_assert_eq!(confirmed.contains(&format!("${n}")), stored(n));
                prop_assert_eq!(given_up.contains(&format!("${n}")), !stored(n));
            }
        }
    }
}
