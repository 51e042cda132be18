//! What is to be sent to one server: a queue in memory, and what survives a restart.
//!
//! To-device messages survive, and so does which event of each room is the newest that the server has not. After a
//! restart, or an outage that lasts, only these newest events are sent.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::Value;

use crate::habits::Habits;

/// One transaction under way.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parcel {
    pub(crate) txn_id: String,
    /// Room and id of each event.
    pub(crate) pdus: Vec<(String, String)>,
    pub(crate) edus: Vec<Value>,
    /// Room and newest event of which this is the catching up.
    catches_up: Option<(String, String)>,
    kept_edus: usize,
    passing_edus: usize,
}

#[derive(Default)]
pub(crate) struct Outbox {
    pdus: VecDeque<(String, String)>,
    kept_edus: VecDeque<Value>,
    passing_edus: VecDeque<Value>,
    /// By room, the newest event that was not sent yet.
    newest: BTreeMap<String, String>,
    is_catching_up: bool,
    next_txn: u64,
    failures: u32,
}

impl Outbox {
    pub(crate) fn pdu(&mut self, room_id: &str, id: &str) {
        self.newest.insert(room_id.to_owned(), id.to_owned());
        if !self.is_catching_up {
            self.pdus.push_back((room_id.to_owned(), id.to_owned()));
        }
    }

    /// An EDU that is kept until it was sent, as to-device messages are.
    pub(crate) fn kept_edu(&mut self, edu: Value) {
        self.kept_edus.push_back(edu);
    }

    /// An EDU that nobody misses, such as typing.
    pub(crate) fn passing_edu(&mut self, edu: Value) {
        self.passing_edus.push_back(edu);
    }

    /// The next transaction. `catch_up` gives the events that stand for a room of which only the newest is known.
    pub(crate) fn next(
        &mut self,
        habits: &Habits,
        first_txn: u64,
        catch_up: impl Fn(&str, &str) -> Vec<String>,
    ) -> Option<Parcel> {
        let newest = self.newest.first_key_value().filter(|_| self.is_catching_up);
        let catches_up = newest.map(|(room_id, id)| (room_id.clone(), id.clone()));
        let pdus: Vec<(String, String)> = match &catches_up {
            Some((room_id, id)) => {
                catch_up(room_id, id).into_iter().map(|id| (room_id.clone(), id)).collect()
            }
            None => self.pdus.iter().take(habits.pdus_max).cloned().collect(),
        };
        let kept: Vec<Value> = self.kept_edus.iter().take(habits.edus_max).cloned().collect();
        let room_left = habits.edus_max - kept.len();
        let passing: Vec<Value> = self.passing_edus.iter().take(room_left).cloned().collect();
        let (kept_edus, passing_edus) = (kept.len(), passing.len());
        let edus: Vec<Value> = kept.into_iter().chain(passing).collect();
        if pdus.is_empty() && edus.is_empty() {
            self.is_catching_up = false;
            return None;
        }
        self.next_txn = self.next_txn.max(first_txn) + 1;
        let txn_id = self.next_txn.to_string();
        Some(Parcel { txn_id, pdus, edus, catches_up, kept_edus, passing_edus })
    }

    /// The other side said 200.
    pub(crate) fn sent(&mut self, parcel: &Parcel) {
        self.failures = 0;
        if let Some((room_id, id)) = &parcel.catches_up {
            if self.newest.get(room_id) == Some(id) {
                self.newest.remove(room_id);
            }
            self.is_catching_up = !self.newest.is_empty();
        } else {
            self.pdus.drain(..parcel.pdus.len().min(self.pdus.len()));
            let left = &self.pdus;
            self.newest.retain(|room_id, _| left.iter().any(|(room, _)| room == room_id));
        }
        self.kept_edus.drain(..parcel.kept_edus.min(self.kept_edus.len()));
        self.passing_edus.drain(..parcel.passing_edus.min(self.passing_edus.len()));
    }

    /// The other side did not take it, however often it was repeated; how long to leave it alone.
    pub(crate) fn failed(&mut self, habits: &Habits) -> Duration {
        let doublings = self.failures.min(16);
        self.failures += 1;
        if self.failures >= habits.catch_up_after {
            self.catch_up();
        }
        (habits.back_off_first * 2u32.pow(doublings)).min(habits.back_off_max)
    }

    pub(crate) fn restart(&mut self) {
        self.failures = 0;
        self.catch_up();
    }

    fn catch_up(&mut self) {
        self.pdus.clear();
        self.passing_edus.clear();
        self.is_catching_up = !self.newest.is_empty();
    }

    /// Whether something is left that is kept until it was sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.newest.is_empty() && self.kept_edus.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(outbox: &mut Outbox) -> Option<Parcel> {
        outbox.next(&Habits::default(), 100, |_, id| vec![id.to_owned()])
    }

    #[test]
    fn after_a_restart_only_the_newest_event_of_each_room_is_sent() {
        let mut outbox = Outbox::default();
        outbox.pdu("!r", "$1");
        outbox.pdu("!r", "$2");
        outbox.pdu("!s", "$3");
        outbox.kept_edu(Value::from("to-device"));
        outbox.passing_edu(Value::from("typing"));
        outbox.restart();
        let first = next(&mut outbox).unwrap();
        assert_eq!(first.pdus, [("!r".to_owned(), "$2".to_owned())]);
        assert_eq!(first.edus, [Value::from("to-device")]);
        outbox.sent(&first);
        let second = next(&mut outbox).unwrap();
        assert_eq!(second.pdus, [("!s".to_owned(), "$3".to_owned())]);
        outbox.sent(&second);
        assert!(outbox.is_empty() && next(&mut outbox).is_none());
    }

    #[test]
    fn what_was_written_while_a_transaction_was_under_way_comes_with_the_next() {
        let mut outbox = Outbox::default();
        outbox.pdu("!r", "$1");
        let first = next(&mut outbox).unwrap();
        outbox.pdu("!r", "$2");
        outbox.sent(&first);
        assert!(!outbox.is_empty());
        let second = next(&mut outbox).unwrap();
        assert_eq!(second.pdus, [("!r".to_owned(), "$2".to_owned())]);
        assert_ne!(first.txn_id, second.txn_id);
    }

    #[test]
    fn the_back_off_grows_to_its_limit_and_ends_with_a_success() {
        let (habits, mut outbox) = (Habits::default(), Outbox::default());
        outbox.pdu("!r", "$1");
        let waits: Vec<Duration> = (0..20).map(|_| outbox.failed(&habits)).collect();
        assert_eq!(waits[..2], [habits.back_off_first, habits.back_off_first * 2]);
        assert_eq!(waits[19], habits.back_off_max);
        let parcel = next(&mut outbox).unwrap();
        outbox.sent(&parcel);
        assert_eq!(outbox.failed(&habits), habits.back_off_first);
    }
}
