//! Decides how fast the events of a room come: a stock homeserver stages a hundred of a room and drops the rest.
//!
//! Pure; the caller passes the time.

use std::collections::BTreeMap;
use std::time::Duration;

use restante_federation::BoundedMap;
use restante_federation_proto::ServerName;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// Events of one room a second. Synapse takes some forty.
const EVENTS_PER_SECOND: u32 = 20;

/// Rooms that are remembered, each for some seconds after its last event.
const ROOMS_MAX: usize = 4096;

/// Stands for a room: its id may be as long as a transaction.
type RoomHash = [u8; 32];

/// When each room of each destination has dealt with what was sent.
pub(crate) struct Pace(BoundedMap<(ServerName, RoomHash), Instant>);

/// How many events of each room a transaction holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Events(BTreeMap<RoomHash, u32>);

#[derive(Deserialize)]
struct Transaction<'a> {
    #[serde(default, borrow)]
    pdus: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct Pdu<'a> {
    #[serde(default, borrow)]
    room_id: Option<&'a RawValue>,
}

impl Events {
    /// Those of a transaction, each read by itself. What can't be read is no room's: its recipient refuses it.
    pub(crate) fn of(content: &[u8]) -> Self {
        let mut events = Self::default();
        let transaction = serde_json::from_slice::<Transaction<'_>>(content);
        let pdus = transaction.ok().and_then(|transaction| transaction.pdus);
        for pdu in pdus.into_iter().flatten() {
            // The first event of a room of the newest version names none; it is alone in its room.
            let room = serde_json::from_str::<Pdu<'_>>(pdu.get()).ok().and_then(|pdu| pdu.room_id);
            let room_id = room.and_then(|room| serde_json::from_str::<String>(room.get()).ok());
            let Some(room_id) = room_id else { continue };
            *events.0.entry(Sha256::digest(room_id).into()).or_default() += 1;
        }
        events
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self(BoundedMap::new(ROOMS_MAX))
    }
}

impl Pace {
    /// Sends `events` to `destination` at `now`, or says when that may be done. What one transaction holds goes at once, and what comes after
    /// waits for it.
    pub(crate) fn admit(
        &mut self,
        destination: &ServerName,
        events: &Events,
        now: Instant,
    ) -> Result<(), Instant> {
        let busy_until =
            |pace: &mut Self, room: &RoomHash| pace.0.get(&(destination.clone(), *room)).copied();
        let free = events.0.keys().filter_map(|room| busy_until(self, room)).max();
        if let Some(free) = free.filter(|free| *free > now) {
            return Err(free);
        }
        for (room, count) in &events.0 {
            let each = Duration::from_secs(1) / EVENTS_PER_SECOND;
            let until = now + each.saturating_mul(*count);
            self.0.insert((destination.clone(), *room), until);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(rooms: &[&str]) -> Events {
        let pdus = rooms.iter().map(|room| format!(r#"{{"room_id":"{room}"}}"#));
        let pdus = pdus.collect::<Vec<_>>().join(",");
        Events::of(format!(r#"{{"pdus":[{pdus}],"edus":[]}}"#).as_bytes())
    }

    #[tokio::test(start_paused = true)]
    async fn fifty_events_keep_their_room_busy_and_no_other() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let b: ServerName = "b.example".parse().unwrap();
        let c: ServerName = "c.example".parse().unwrap();
        pace.admit(&b, &events(&["!r"; 50]), now).unwrap();

        let free = now + Duration::from_millis(2500);
        assert_eq!(pace.admit(&b, &events(&["!s", "!r"]), now), Err(free));
        assert_eq!(pace.admit(&b, &events(&["!s"]), now), Ok(()));
        assert_eq!(pace.admit(&b, &events(&[]), now), Ok(()));
        assert_eq!(pace.admit(&c, &events(&["!r"]), now), Ok(()));
        assert_eq!(pace.admit(&b, &events(&["!r"]), free), Ok(()));
    }

    #[test]
    fn what_is_no_transaction_has_no_rooms() {
        for content in ["", "[]", r#"{"pdus":null}"#, r#"{"pdus":[{}]}"#, r#"{"pdus":[7]}"#] {
            assert_eq!(Events::of(content.as_bytes()), Events::default(), "{content}");
        }
    }

    #[test]
    fn an_event_that_can_not_be_read_leaves_the_others_in_their_rooms() {
        let odd = br#"{"pdus":[{"room_id":7},7,{"room_id":"!r"},null,{"room_id":"\u0021r"}]}"#;
        assert_eq!(Events::of(odd), events(&["!r", "!r"]));
    }

    #[test]
    fn a_room_takes_the_same_memory_however_long_its_id_is() {
        let long = events(&["!r".repeat(1 << 20).as_str()]);
        assert_eq!(long.0.len(), 1);
        assert_eq!(std::mem::size_of_val(long.0.keys().next().unwrap()), 32);
    }

    proptest! {
        #[test]
        fn no_more_than_twenty_events_of_a_room_come_in_a_second_beside_the_last_transaction(
            sizes in prop::collection::vec(1..=50_usize, 1..40)
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _entered = runtime.enter();
            let (mut pace, begun) = (Pace::default(), Instant::now());
            let b: ServerName = "b.example".parse().unwrap();
            let (mut now, mut sent) = (begun, 0);
            for size in sizes {
                if let Err(later) = pace.admit(&b, &events(&vec!["!r"; size]), now) {
                    now = later;
                    prop_assert_eq!(pace.admit(&b, &events(&vec!["!r"; size]), now), Ok(()));
                }
                let seconds = now.duration_since(begun).as_secs_f64();
                prop_assert!(sent as f64 <= 20.0 * seconds + 0.001, "{sent} in {seconds} s");
                sent += size;
            }
        }
    }
}
