//! Decides which room's backlog is looked at next.
//!
//! Pure: the caller passes the time and the random share of each wait.

use std::collections::BTreeMap;
use std::time::Duration;

use restante_federation_proto::Timestamp;

use crate::backoff::backoff;

/// The first wait of a room whose backlog can't be delivered, in case nothing tells of its progress.
const WAIT_FIRST: Duration = Duration::from_secs(5);

/// The longest of these waits: predecessors may also come to the homeserver without this node, and their senders may
/// come back. A look takes twenty questions at most.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// How a look at a room's backlog ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RoomTurn {
    /// Nothing waits there.
    Empty,
    /// Something was delivered or parked.
    Progress,
    /// Something is waited for, at most so long.
    Waits {
        /// For what.
        reason: String,
        /// At most.
        at_most: Option<Duration>,
    },
}

/// The rooms that have a backlog.
#[derive(Debug, Default)]
pub(crate) struct BacklogRooms {
    rooms: BTreeMap<String, Room>,
}

#[derive(Debug)]
struct Room {
    due: Timestamp,
    failures: u32,
    /// Something happened since the look began.
    woken: bool,
    reason: Option<String>,
}

impl BacklogRooms {
    /// Events were added to the room's backlog.
    pub(crate) fn added(&mut self, room_id: &str, now: Timestamp) {
        let new = || Room { due: now, failures: 0, woken: true, reason: None };
        self.rooms.entry(room_id.to_owned()).or_insert_with(new);
        self.happened(room_id, now);
    }

    /// Something happened in the room; whether it has a backlog.
    pub(crate) fn happened(&mut self, room_id: &str, now: Timestamp) -> bool {
        let Some(room) = self.rooms.get_mut(room_id) else { return false };
        room.due = room.due.min(now);
        room.woken = true;
        true
    }

    /// Whether the room has a backlog.
    pub(crate) fn contains(&self, room_id: &str) -> bool {
        self.rooms.contains_key(room_id)
    }

    /// Whether no room has one.
    pub(crate) fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// The room that is due first, and when.
    pub(crate) fn next(&self) -> Option<(String, Timestamp)> {
        let next = self.rooms.iter().min_by_key(|(_, room)| room.due);
        next.map(|(room_id, room)| (room_id.clone(), room.due))
    }

    /// A look at the room begins.
    pub(crate) fn begin(&mut self, room_id: &str) {
        if let Some(room) = self.rooms.get_mut(room_id) {
            room.woken = false;
        }
    }

    /// The look ended so. `random` is in 0..1.
    pub(crate) fn ended(&mut self, room_id: &str, turn: RoomTurn, now: Timestamp, random: f64) {
        let Some(room) = self.rooms.get_mut(room_id) else { return };
        match turn {
            RoomTurn::Empty if !room.woken => {
                self.rooms.remove(room_id);
            }
            RoomTurn::Empty | RoomTurn::Progress => {
                (room.due, room.failures, room.reason) = (now, 0, None);
            }
            RoomTurn::Waits { reason, at_most } => {
                room.failures = room.failures.saturating_add(1);
                let wait = backoff(room.failures, WAIT_FIRST, WAIT_MAX, random);
                let wait = at_most.map_or(wait, |at_most| at_most.min(wait));
                room.due = if room.woken { now } else { now.after(wait) };
                room.reason = Some(reason);
            }
        }
    }

    /// What the room waits for.
    pub(crate) fn reason(&self, room_id: &str) -> Option<String> {
        self.rooms.get(room_id)?.reason.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn waits() -> RoomTurn {
        RoomTurn::Waits { reason: "a gap".to_owned(), at_most: None }
    }

    #[test]
    fn a_room_that_waits_lets_the_others_go_first_and_comes_again() {
        let mut rooms = BacklogRooms::default();
        rooms.added("!a", at(0));
        rooms.added("!b", at(1));
        rooms.begin("!a");
        rooms.ended("!a", waits(), at(1), 0.5);
        assert_eq!(rooms.next(), Some(("!b".to_owned(), at(1))));
        rooms.begin("!b");
        rooms.ended("!b", RoomTurn::Empty, at(1), 0.5);
        let (room, due) = rooms.next().unwrap();
        assert_eq!(room, "!a");
        assert!(due > at(1) && due <= at(11));
        assert_eq!(rooms.reason("!a").as_deref(), Some("a gap"));
    }

    #[test]
    fn what_happens_during_a_look_is_not_missed() {
        let mut rooms = BacklogRooms::default();
        for turn in [waits(), RoomTurn::Empty] {
            rooms.added("!a", at(0));
            rooms.begin("!a");
            assert!(rooms.happened("!a", at(1)));
            rooms.ended("!a", turn, at(2), 0.5);
            assert!(rooms.next().unwrap().1 <= at(2));
        }
        assert!(!rooms.happened("!quiet", at(2)));
    }

    #[test]
    fn waits_grow_to_their_limit() {
        let mut rooms = BacklogRooms::default();
        rooms.added("!a", at(0));
        for _ in 0..50 {
            rooms.begin("!a");
            rooms.ended("!a", waits(), at(0), 0.99);
        }
        assert!(rooms.next().unwrap().1 <= Timestamp::EPOCH.after(WAIT_MAX * 2));
    }
}
