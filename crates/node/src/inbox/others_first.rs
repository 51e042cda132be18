//! Decides whether mail waits for others' mail of the same room though its origin can be reached.
//!
//! What a homeserver misses it fetches from an origin that can be reached. But what it fetches from more than a few events
//! back it takes for history, which clients do not show as news. So what is here, or at our relays, is delivered first.

use std::collections::BTreeSet;
use std::time::Duration;

use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::StoreError;

use super::Inbox;
use super::order::RelaysHeard;
use crate::store::inbox::{self as rows, Envelope};

/// The longest wait for others' mail: a homeserver takes some thousand events in this time.
const OTHERS_WAIT_MAX: Duration = Duration::from_secs(120);

/// How much of it relays may use that have not given all that they hold: those that can be reached take seconds.
const RELAYS_WAIT_MAX: Duration = Duration::from_secs(10);

/// Whose mail may hold what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    /// Nobody's that could be delivered before.
    None,
    /// Somebody's mail for the same room is on its way into the homeserver.
    Deliver,
    /// All who have mail for the room wait for something themselves, perhaps for us: transactions hold several events, and may
    /// wait for each other in a circle.
    Wait,
}

/// What comes of a room that is not ready for mail of an origin that can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// Others' mail goes first.
    Others,
    /// The room's events are set aside until what they follow has come, so that nobody waits for them.
    Aside,
    /// Nobody can still bring what is missing but the origin itself.
    This,
    /// The relays may; they must be asked at this time or later.
    Relays(Timestamp),
}

/// Pure: mail that arrived at `arrived_at`, what the relays have said, and whether others have mail for the room.
fn first(arrived_at: Timestamp, heard: RelaysHeard, others: Others, now: Timestamp) -> First {
    // An arrival in the future was noted by a clock that was set back since.
    let since = arrived_at.max(heard.started_at).min(now);
    let waited = now.since(since);
    let are_drained = heard.all_drained_at.is_some_and(|drained| drained >= since);
    match others {
        _ if arrived_at > now || waited >= OTHERS_WAIT_MAX => First::This,
        _ if !are_drained && waited < RELAYS_WAIT_MAX => First::Relays(since),
        Others::Deliver => First::Others,
        Others::Wait => First::Aside,
        Others::None => First::This,
    }
}

impl Inbox {
    /// What goes first, mail of `origin` or others' mail for these rooms, which are not ready for it.
    pub(super) async fn first(
        &self,
        origin: &ServerName,
        envelope: &Envelope,
        rooms: &BTreeSet<String>,
    ) -> Result<First, StoreError> {
        let others = rows::origins_in_rooms(self.database(), origin.clone(), rooms.clone()).await?;
        let first =
            first(envelope.arrived_at, self.relays_heard(), self.others(&others), self.now());
        if let First::Relays(ask_since) = first {
            self.ask_relays(ask_since);
        }
        Ok(first)
    }

    fn others(&self, origins: &BTreeSet<ServerName>) -> Others {
        let state = self.state();
        if origins.is_empty() {
            Others::None
        } else if origins.iter().all(|origin| state.waits_for_rooms.contains(origin)) {
            Others::Wait
        } else {
            Others::Deliver
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn decided(drained: Option<u64>, others: Others, now: u64) -> First {
        let heard = RelaysHeard { started_at: at(0), all_drained_at: drained.map(at) };
        first(at(100), heard, others, at(now))
    }

    #[test]
    fn mail_goes_when_relays_are_drained_and_nobody_else_has_mail_for_the_room() {
        assert_eq!(decided(Some(100), Others::None, 101), First::This);
        assert_eq!(decided(Some(100), Others::Deliver, 101), First::Others);
        assert_eq!(decided(Some(100), Others::Wait, 101), First::Aside);
    }

    #[test]
    fn relays_that_do_not_answer_are_waited_for_but_shortly() {
        assert_eq!(decided(Some(99), Others::None, 100), First::Relays(at(100)));
        assert_eq!(decided(None, Others::None, 109), First::Relays(at(100)));
        assert_eq!(decided(None, Others::None, 110), First::This);
        assert_eq!(decided(None, Others::Deliver, 110), First::Others);
    }

    #[test]
    fn nobody_holds_mail_up_for_ever() {
        assert_eq!(decided(Some(100), Others::Deliver, 219), First::Others);
        assert_eq!(decided(Some(100), Others::Deliver, 220), First::This);
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_prolong_it() {
        assert_eq!(decided(None, Others::Deliver, 20), First::This);
    }
}
