//! Decides a transaction's place in its stream, and what the ledger says of it.
//!
//! Pure: `store/ledger.rs` reads and writes the lines. A stream is numbered from 1 without holes, and the same
//! transaction, however often the homeserver repeats it, keeps its number.

use std::collections::BTreeSet;
use std::time::Duration;

use restante_federation_proto::{ServerName, Timestamp};
use restante_relay_api::limits::{MEMORY_BEYOND_TIME_TO_LIVE, TIME_TO_LIVE};

/// A transaction's place: the same for each of its attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The number in the stream to its destination.
    pub(crate) seq: u64,
    /// When it was first seen.
    pub(crate) first_at: Timestamp,
}

/// What a line of the ledger says became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LedgerState {
    /// Nobody has it yet, as far as is known.
    Pending,
    /// These relays hold it.
    Relayed(BTreeSet<ServerName>),
    /// The destination itself took it.
    Delivered,
}

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Its place.
    pub(crate) place: Place,
    /// When the destination itself took it, or confirmed it.
    pub(crate) delivered_at: Option<Timestamp>,
    /// Who holds it.
    pub(crate) holders: BTreeSet<ServerName>,
    /// Whether a copy of it is kept.
    pub(crate) copy: CopyState,
}

/// Whether a copy of a transaction is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopyState {
    /// It is.
    Kept,
    /// None was made, or it is gone.
    None,
}

impl Line {
    /// What became of it: an own delivery says more than any relay.
    pub(crate) fn state(&self) -> LedgerState {
        match (self.delivered_at, self.holders.is_empty()) {
            (Some(_), _) => LedgerState::Delivered,
            (None, false) => LedgerState::Relayed(self.holders.clone()),
            (None, true) => LedgerState::Pending,
        }
    }
}

/// The place of a transaction that comes at `now`: the one it has, or the next in the stream.
pub(crate) fn place(known: Option<Place>, newest_seq: u64, now: Timestamp) -> Place {
    known.unwrap_or(Place { seq: newest_seq + 1, first_at: now })
}

/// Lines older than this say nothing that anybody can still ask for.
const MEMORY: Duration = TIME_TO_LIVE.saturating_add(MEMORY_BEYOND_TIME_TO_LIVE);

/// Lines that are forgotten in one commit, so that other writes need not wait long.
pub(crate) const FORGOTTEN_AT_ONCE: u32 = 200;

/// Lines from before this time are forgotten.
pub(crate) fn forgotten_before(now: Timestamp) -> Timestamp {
    now.before(MEMORY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(10_000_000_000);

    #[test]
    fn a_known_transaction_keeps_its_place_and_another_takes_the_next() {
        let known = Place { seq: 7, first_at: Timestamp::from_millis(5) };
        assert_eq!(place(Some(known.clone()), 9, NOW), known);
        assert_eq!(place(None, 9, NOW), Place { seq: 10, first_at: NOW });
        assert_eq!(place(None, 0, NOW), Place { seq: 1, first_at: NOW });
    }

    #[test]
    fn an_own_delivery_says_more_than_a_relay() {
        let mut line = Line {
            place: place(None, 0, NOW),
            delivered_at: None,
            holders: BTreeSet::new(),
            copy: CopyState::None,
        };
        assert_eq!(line.state(), LedgerState::Pending);
        line.holders.insert("r.test".parse().unwrap());
        assert_eq!(line.state(), LedgerState::Relayed(line.holders.clone()));
        line.delivered_at = Some(NOW);
        assert_eq!(line.state(), LedgerState::Delivered);
    }

    #[test]
    fn what_a_relay_may_still_hold_is_remembered() {
        assert!(forgotten_before(NOW.after(TIME_TO_LIVE)) < NOW);
        assert!(forgotten_before(NOW.after(MEMORY + Duration::from_millis(1))) > NOW);
    }
}
