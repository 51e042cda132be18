//! Decides whether a transaction's rooms are ready for it: whether each predecessor is there.
//!
//! Pure: [`questions`] says what must be asked of the homeserver, [`missing`] judges the answers.

use std::collections::{BTreeMap, BTreeSet};

use super::transaction::Pdu;
use crate::homeserver::Presence;

/// Predecessors that are asked for at once; what is beyond them is asked when these are there.
const QUESTIONS_MAX: usize = 20;

/// An event of a room.
pub(crate) type RoomEvent = (String, String);

/// The predecessors that the homeserver must be asked for: neither in the transaction itself before their successor,
/// nor `delivered` by this node and on their way into the homeserver.
pub(crate) fn questions(
    pdus: &[Pdu],
    delivered: impl Fn(&RoomEvent) -> bool,
) -> BTreeSet<RoomEvent> {
    let mut before = BTreeSet::new();
    let mut asked = BTreeSet::new();
    for pdu in pdus {
        for prev in &pdu.prev_events {
            let event = (pdu.room_id.clone(), prev.clone());
            if asked.len() < QUESTIONS_MAX && !before.contains(prev) && !delivered(&event) {
                asked.insert(event);
            }
        }
        before.extend(pdu.event_id.as_ref());
    }
    asked
}

/// The events that are missing, by room; none if every room is ready. A room that the homeserver is not in is ready:
/// it makes nothing of its events anyway. One whose state it still fetches is not: whether its predecessors are there
/// can't be told.
pub(crate) fn missing(answers: &BTreeMap<RoomEvent, Presence>) -> BTreeMap<&str, Vec<&str>> {
    let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let waits = |is: &Presence| matches!(is, Presence::Absent | Presence::Incomplete);
    for ((room_id, event_id), _) in answers.iter().filter(|(_, is)| waits(is)) {
        missing.entry(room_id).or_default().push(event_id);
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pdu(room: &str, id: &str, prev: &[&str]) -> Pdu {
        Pdu {
            room_id: room.to_owned(),
            event_id: Some(id.to_owned()),
            prev_events: prev.iter().map(|id| (*id).to_owned()).collect(),
            ..Pdu::default()
        }
    }

    fn event(room: &str, id: &str) -> RoomEvent {
        (room.to_owned(), id.to_owned())
    }

    #[test]
    fn a_predecessor_in_the_transaction_itself_need_not_be_asked_for() {
        let pdus = [pdu("!r", "$1", &["$0"]), pdu("!r", "$2", &["$1"])];
        assert_eq!(questions(&pdus, |_| false), [event("!r", "$0")].into());
    }

    #[test]
    fn a_successor_before_its_predecessor_does_not_count() {
        let pdus = [pdu("!r", "$2", &["$1"]), pdu("!r", "$1", &[])];
        assert_eq!(questions(&pdus, |_| false), [event("!r", "$1")].into());
    }

    #[test]
    fn what_this_node_delivered_before_need_not_be_asked_for() {
        let pdus = [pdu("!r", "$2", &["$1", "$x"])];
        let asked = questions(&pdus, |(_, id)| id == "$1");
        assert_eq!(asked, [event("!r", "$x")].into());
    }

    #[test]
    fn no_more_is_asked_at_once_than_the_bound_says() {
        let prev: Vec<String> = (0..=QUESTIONS_MAX).map(|number| format!("${number}")).collect();
        let prev: Vec<&str> = prev.iter().map(String::as_str).collect();
        assert_eq!(questions(&[pdu("!r", "$x", &prev)], |_| false).len(), QUESTIONS_MAX);
    }

    #[test]
    fn an_event_that_follows_nothing_is_ready() {
        assert!(questions(&[pdu("!r", "$create", &[])], |_| false).is_empty());
        assert!(missing(&BTreeMap::new()).is_empty());
    }

    #[test]
    fn what_is_absent_from_a_room_that_the_homeserver_is_in_or_joins_is_missing() {
        let answers = BTreeMap::from([
            (event("!r", "$1"), Presence::Present),
            (event("!r", "$2"), Presence::Absent),
            (event("!left", "$3"), Presence::NotInRoom),
            (event("!joining", "$4"), Presence::Incomplete),
        ]);
        let expected = BTreeMap::from([("!r", vec!["$2"]), ("!joining", vec!["$4"])]);
        assert_eq!(missing(&answers), expected);
    }
}
