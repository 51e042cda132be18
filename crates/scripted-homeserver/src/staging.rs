//! Events that were taken and not looked at yet, by room: at most so many, the rest is dropped without a word.

use std::collections::{BTreeMap, VecDeque};

use restante_federation_proto::ServerName;

use crate::pdu::Pdu;

/// An event with the server that sent it, which is asked for what is missing.
#[derive(Debug, Clone)]
pub(crate) struct Staged {
    pub(crate) pdu: Pdu,
    pub(crate) sender: ServerName,
}

#[derive(Default)]
pub(crate) struct Staging {
    rooms: BTreeMap<String, VecDeque<Staged>>,
}

impl Staging {
    /// Puts an event last; `false` says that it was dropped.
    pub(crate) fn put(&mut self, staged: Staged, staged_max: usize) -> bool {
        let room = self.rooms.entry(staged.pdu.room_id.clone()).or_default();
        let has_place = room.len() < staged_max;
        if has_place && room.iter().all(|other| other.pdu.id != staged.pdu.id) {
            room.push_back(staged);
        }
        has_place
    }

    /// The one that comes next; it stays until [`Staging::done`].
    pub(crate) fn first(&self, room_id: &str) -> Option<Staged> {
        self.rooms.get(room_id)?.front().cloned()
    }

    pub(crate) fn done(&mut self, room_id: &str) {
        if let Some(room) = self.rooms.get_mut(room_id) {
            room.pop_front();
        }
    }

    /// Rooms in which something waits.
    pub(crate) fn rooms(&self) -> Vec<String> {
        let waiting = self.rooms.iter().filter(|(_, staged)| !staged.is_empty());
        waiting.map(|(room_id, _)| room_id.clone()).collect()
    }
}
