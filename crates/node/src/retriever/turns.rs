//! Decides which relay hands its backlog over while the others wait, so that what several hold need be downloaded once.
//!
//! Pure: the time comes in. A turn is nobody's for good: a relay that gives nothing new for a while, or has had its turn for
//! long, makes way for the next one that waits.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

/// Without new mail for so long a turn is over: a relay that hangs or drips must not hold up the others.
pub(super) const PROGRESS_WITHIN: Duration = Duration::from_secs(10);

/// A turn while others wait. What one gave the others hear of and do not give again, so that changing costs nothing.
pub(super) const TURN_MAX: Duration = Duration::from_secs(60);

/// One relay among those that take turns: its rank, lowest first, and a number of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) rank: usize,
    pub(super) number: u64,
}

/// Who has a turn, and who waits for one.
#[derive(Debug, Default)]
pub(super) struct Turns {
    waiting: BTreeSet<Place>,
    holder: Option<Holder>,
    /// Who had the last turn; the next of those who wait comes after it.
    last: Option<Place>,
}

#[derive(Debug, Clone, Copy)]
struct Holder {
    place: Place,
    since: Instant,
    progressed_at: Instant,
}

/// The answer to whoever wants its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It has it.
    Yours,
    /// Another has; it is over at this time at the latest.
    Anothers {
        /// When to ask again, if nothing changes before.
        until: Instant,
    },
}

impl Turns {
    /// `place` wants its turn, and will ask for it.
    pub(super) fn want(&mut self, place: Place) {
        self.waiting.insert(place);
    }

    /// Whose turn it is, for `place`, which has a backlog.
    pub(super) fn ask(&mut self, place: Place, now: Instant) -> Turn {
        let mut holder = match self.holder {
            Some(holder) if holder.place == place => {
                self.waiting.remove(&place);
                holder
            }
            Some(holder) => {
                self.waiting.insert(place);
                holder
            }
            None => {
                self.waiting.insert(place);
                self.pass_on(now, place)
            }
        };
        if holder.is_over(now) && !self.waiting.is_empty() {
            let before = holder.place;
            holder = self.pass_on(now, place);
            if before == place {
                self.waiting.insert(place);
            }
        }
        if holder.place == place { Turn::Yours } else { Turn::Anothers { until: holder.over_at() } }
    }

    /// Gives the turn to the next that waits, or to `asking` if nobody does.
    fn pass_on(&mut self, now: Instant, asking: Place) -> Holder {
        let after = self.last.and_then(|last| self.waiting.iter().find(|place| **place > last));
        let next = *after.or_else(|| self.waiting.first()).unwrap_or(&asking);
        self.waiting.remove(&next);
        let holder = Holder { place: next, since: now, progressed_at: now };
        (self.holder, self.last) = (Some(holder), Some(next));
        holder
    }

    /// `place` gave new mail.
    pub(super) fn progressed(&mut self, place: Place, now: Instant) {
        if let Some(holder) = self.holder.as_mut().filter(|holder| holder.place == place) {
            holder.progressed_at = now;
        }
    }

    /// `place` has no backlog, or can't be asked for it; whether that makes way for another.
    pub(super) fn release(&mut self, place: Place) -> Changed {
        self.waiting.remove(&place);
        if self.holder.is_none_or(|holder| holder.place != place) {
            return Changed::Nothing;
        }
        self.holder = None;
        Changed::TurnIsFree
    }
}

/// What a release did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changed {
    /// Whoever waits may ask.
    TurnIsFree,
    Nothing,
}

impl Holder {
    fn over_at(&self) -> Instant {
        (self.progressed_at + PROGRESS_WITHIN).min(self.since + TURN_MAX)
    }

    fn is_over(&self, now: Instant) -> bool {
        now >= self.over_at()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn place(rank: usize) -> Place {
        Place { rank, number: 100 - rank as u64 }
    }

    #[test]
    fn the_best_of_those_who_want_it_has_the_first_turn_whoever_asks_first() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        [1, 0, 2].into_iter().for_each(|rank| turns.want(place(rank)));
        let until = now + PROGRESS_WITHIN;
        assert_eq!(turns.ask(place(2), now), Turn::Anothers { until });
        assert_eq!(turns.ask(place(0), now), Turn::Yours);
        assert_eq!(turns.ask(place(1), now), Turn::Anothers { until });
        assert_eq!(turns.release(place(0)), Changed::TurnIsFree);
        assert_eq!(turns.release(place(0)), Changed::Nothing);
        assert_eq!(turns.ask(place(2), now), Turn::Anothers { until });
        assert_eq!(turns.ask(place(1), now), Turn::Yours);
    }

    #[test]
    fn who_gives_nothing_new_for_a_while_makes_way_and_has_another_turn_in_the_end() {
        let (mut turns, begun) = (Turns::default(), Instant::now());
        [0, 1].into_iter().for_each(|rank| turns.want(place(rank)));
        assert_eq!(turns.ask(place(0), begun), Turn::Yours);
        turns.progressed(place(0), begun + SECOND * 3);
        let until = begun + SECOND * 13;
        assert_eq!(turns.ask(place(1), begun + SECOND * 12), Turn::Anothers { until });
        assert_eq!(turns.ask(place(1), until), Turn::Yours);
        turns.progressed(place(0), until);
        assert!(matches!(turns.ask(place(0), until), Turn::Anothers { .. }));
        turns.release(place(1));
        assert_eq!(turns.ask(place(0), until), Turn::Yours);
    }

    #[test]
    fn a_turn_ends_while_others_wait_however_well_it_goes_and_not_otherwise() {
        let (mut turns, begun) = (Turns::default(), Instant::now());
        let goes_well = |turns: &mut Turns, seconds: std::ops::Range<u32>| {
            seconds
                .take_while(|second| {
                    turns.progressed(place(0), begun + SECOND * *second);
                    turns.ask(place(0), begun + SECOND * *second) == Turn::Yours
                })
                .last()
        };
        assert_eq!(goes_well(&mut turns, 0..300), Some(299));
        assert_eq!(turns.ask(place(1), begun + SECOND * 300), Turn::Yours);
        turns.release(place(1));
        assert_eq!(goes_well(&mut turns, 301..302), Some(301));
        let until = begun + SECOND * 302 + PROGRESS_WITHIN - SECOND;
        assert_eq!(turns.ask(place(1), begun + SECOND * 303), Turn::Anothers { until });
        assert_eq!(goes_well(&mut turns, 303..400), Some(360));
        assert_eq!(turns.ask(place(1), begun + SECOND * 361), Turn::Yours);
    }

    proptest! {
        /// Whatever the others do, who keeps asking has its turn within a turn of each, and never two at once.
        #[test]
        fn nobody_waits_for_ever_and_no_two_have_a_turn(
            events in proptest::collection::vec((0usize..4, 0u8..3, 0u64..8), 0..200),
        ) {
            let (mut turns, mut now) = (Turns::default(), Instant::now());
            let mut waits_since = now;
            for (rank, event, seconds) in events {
                now += SECOND * u32::try_from(seconds).unwrap();
                let place = place(rank);
                match event {
                    0 => turns.progressed(place, now),
                    1 => {
                        turns.release(place);
                    }
                    _ => {
                        turns.ask(place, now);
                    }
                }
                let mine = turns.ask(self::place(4), now);
                let others = (0..4).filter(|rank| {
                    turns.holder.is_some_and(|holder| holder.place == self::place(*rank))
                });
                prop_assert_eq!(others.count(), usize::from(mine != Turn::Yours));
                if mine == Turn::Yours {
                    waits_since = now;
                }
                prop_assert!(now - waits_since <= (TURN_MAX + SECOND * 8) * 4);
            }
        }
    }
}
