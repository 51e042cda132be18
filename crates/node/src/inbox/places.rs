//! Places in the rooms' windows for a transaction that is on its way to the homeserver.

use std::collections::BTreeMap;

use super::Inbox;

/// Places that are taken, and given back however the way of the transaction ends.
pub(super) struct Places {
    inbox: Inbox,
    counts: BTreeMap<String, usize>,
    envelope: Option<i64>,
}

impl Inbox {
    /// Takes so many places in each room, for the events of `envelope` or of a backlog.
    pub(super) fn take_places(
        &self,
        counts: BTreeMap<String, usize>,
        envelope: Option<i64>,
    ) -> Places {
        let now = self.elapsed();
        let mut state = self.state();
        state.confirmations.reserve(&counts, now);
        state.delivering.extend(envelope);
        Places { inbox: self.clone(), counts, envelope }
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        let mut state = self.inbox.state();
        if let Some(envelope) = self.envelope {
            state.delivering.remove(&envelope);
        }
        state.confirmations.release(&self.counts);
    }
}
