//! What the homeserver took and is not known to have stored: the rooms' windows, and what each envelope waits for.
//!
//! Pure: the caller passes the time and says what it found.

use std::collections::BTreeMap;

use restante_federation_proto::{ServerName, Timestamp};

use super::readiness::RoomEvent;
use super::window::{Carrier, NotFound, Sent, WINDOW_MAX, Window};

/// Rooms whose windows are kept though nothing is outstanding there, for what was confirmed lately.
const IDLE_ROOMS_MAX: usize = 256;

/// All windows, and the envelopes whose events are in them.
#[derive(Debug, Default)]
pub(crate) struct Confirmations {
    rooms: BTreeMap<String, Window>,
    envelopes: BTreeMap<i64, Open>,
}

#[derive(Debug)]
struct Open {
    origin: ServerName,
    outstanding: usize,
}

/// An event to look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Look {
    /// Its room and id.
    pub(crate) event: RoomEvent,
    /// When.
    pub(crate) due: Timestamp,
}

/// Mail with nothing outstanding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finished {
    /// An envelope: each of its events was found or given up.
    Envelope {
        /// Its row.
        id: i64,
        /// Its origin.
        origin: ServerName,
    },
    /// An event of the backlog, by its row: it was found.
    Held(i64),
}

impl Confirmations {
    /// Whether a transaction with so many events in each room may be sent; the rooms that have no place for it.
    pub(crate) fn full_rooms(&self, counts: &BTreeMap<String, usize>) -> Vec<String> {
        let full = |(room, count): &(&String, &usize)| {
            self.rooms.get(*room).is_some_and(|window| !window.admits(**count))
        };
        counts.iter().filter(full).map(|(room, _)| room.clone()).collect()
    }

    /// Takes places for a transaction that is sent now.
    pub(crate) fn reserve(&mut self, counts: &BTreeMap<String, usize>, now: Timestamp) {
        for (room, count) in counts {
            self.window(room, now).reserve(*count);
        }
    }

    /// Gives the places back, once the transaction is answered.
    pub(crate) fn release(&mut self, counts: &BTreeMap<String, usize>) {
        for (room, count) in counts {
            if let Some(window) = self.rooms.get_mut(room) {
                window.release(*count);
            }
        }
    }

    /// Whether this event was delivered and is outstanding or was confirmed lately.
    pub(crate) fn delivered(&self, event: &RoomEvent) -> bool {
        self.rooms.get(&event.0).is_some_and(|window| window.delivered(&event.1))
    }

    /// Whether events are on their way or outstanding in no room.
    pub(crate) fn is_idle(&self) -> bool {
        self.rooms.values().all(Window::is_idle)
    }

    /// Whether events are on their way or outstanding in this room.
    pub(crate) fn is_busy(&self, room_id: &str) -> bool {
        self.rooms.get(room_id).is_some_and(|window| !window.is_idle())
    }

    /// How many more events of the room may be sent.
    pub(crate) fn places(&self, room_id: &str) -> usize {
        self.rooms.get(room_id).map_or(WINDOW_MAX, Window::places)
    }

    /// The homeserver took these events of one envelope, by room; at least one.
    pub(crate) fn sent(
        &mut self,
        (id, origin): (i64, ServerName),
        events: Vec<(String, Sent)>,
        now: Timestamp,
    ) {
        self.envelopes.insert(id, Open { origin, outstanding: events.len() });
        self.rewrapped(events, now);
    }

    /// The homeserver took these events of the backlog, by room.
    pub(crate) fn rewrapped(&mut self, events: Vec<(String, Sent)>, now: Timestamp) {
        for (room, sent) in events {
            self.window(&room, now).sent([sent], now);
        }
    }

    /// What to look for next.
    pub(crate) fn next_look(&self) -> Option<Look> {
        let looks = self.rooms.iter().filter_map(|(room, window)| {
            let (event_id, due) = window.look()?;
            Some(Look { event: (room.clone(), event_id.to_owned()), due })
        });
        looks.min_by_key(|look| look.due)
    }

    /// The homeserver has the event.
    pub(crate) fn found(&mut self, event: &RoomEvent, now: Timestamp) -> Vec<Finished> {
        let settled = self.rooms.get_mut(&event.0).map(|window| window.found(&event.1, now));
        self.settle(settled.unwrap_or_default())
    }

    /// The homeserver is not in the room, and keeps nothing of it.
    pub(crate) fn left(&mut self, room_id: &str, now: Timestamp) -> Vec<Finished> {
        let settled = self.rooms.get_mut(room_id).map(|window| window.left(now));
        self.settle(settled.unwrap_or_default())
    }

    /// The homeserver does not have the event.
    pub(crate) fn not_found(&mut self, event: &RoomEvent, now: Timestamp) -> NotFound {
        let window = self.rooms.get_mut(&event.0);
        window.map_or(NotFound::MayCome, |window| window.not_found(&event.1, now))
    }

    /// What brought the event, with the origin of an envelope.
    pub(crate) fn carriers(&self, event: &RoomEvent) -> Vec<(Carrier, Option<ServerName>)> {
        let window = self.rooms.get(&event.0);
        let carriers = window.map(|window| window.carriers(&event.1)).unwrap_or_default();
        let with_origin = carriers.into_iter().map(|carrier| match carrier {
            Carrier::Envelope(id) => {
                (carrier, self.envelopes.get(&id).map(|open| open.origin.clone()))
            }
            Carrier::Backlog(_) => (carrier, None),
        });
        with_origin.collect()
    }

    /// The event is given up, as far as one of `carriers` brought it: the envelopes that are finished by that.
    pub(crate) fn given_up(
        &mut self,
        event: &RoomEvent,
        carriers: &[Carrier],
        now: Timestamp,
    ) -> Vec<Finished> {
        let window = self.rooms.get_mut(&event.0);
        let settled = window.map(|window| window.given_up(&event.1, carriers, now));
        let mut finished = self.settle(settled.unwrap_or_default());
        finished.retain(|finished| matches!(finished, Finished::Envelope { .. }));
        finished
    }

    /// The homeserver could not be asked for the room.
    pub(crate) fn not_answered(&mut self, room_id: &str, now: Timestamp) {
        if let Some(window) = self.rooms.get_mut(room_id) {
            window.not_answered(now);
        }
    }

    fn settle(&mut self, settled: Vec<Sent>) -> Vec<Finished> {
        settled.into_iter().filter_map(|sent| self.settle_one(sent.carrier)).collect()
    }

    fn settle_one(&mut self, carrier: Carrier) -> Option<Finished> {
        let id = match carrier {
            Carrier::Backlog(id) => return Some(Finished::Held(id)),
            Carrier::Envelope(id) => id,
        };
        let open = self.envelopes.get_mut(&id)?;
        open.outstanding -= 1;
        if open.outstanding > 0 {
            return None;
        }
        self.envelopes.remove(&id).map(|Open { origin, .. }| Finished::Envelope { id, origin })
    }

    fn window(&mut self, room: &str, now: Timestamp) -> &mut Window {
        if self.rooms.len() >= IDLE_ROOMS_MAX && !self.rooms.contains_key(room) {
            self.rooms.retain(|_, window| !window.is_idle());
        }
        self.rooms.entry(room.to_owned()).or_insert_with(|| Window::new(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn sent(room: &str, id: &str, envelope: i64) -> (String, Sent) {
        let event_id = id.to_owned();
        let carrier = Carrier::Envelope(envelope);
        (room.to_owned(), Sent { event_id, prev_events: vec![], carrier })
    }

    fn event(room: &str, id: &str) -> RoomEvent {
        (room.to_owned(), id.to_owned())
    }

    fn origin() -> ServerName {
        "a.example".parse().unwrap()
    }

    #[test]
    fn an_envelope_is_finished_with_its_last_event() {
        let mut confirmations = Confirmations::default();
        let events = vec![sent("!r", "$1", 7), sent("!s", "$2", 7)];
        confirmations.sent((7, origin()), events, at(0));
        assert_eq!(confirmations.found(&event("!r", "$1"), at(1)), []);
        let finished = confirmations.found(&event("!s", "$2"), at(2));
        assert_eq!(finished, [Finished::Envelope { id: 7, origin: origin() }]);
        assert_eq!(confirmations.next_look(), None);
    }

    #[test]
    fn a_dropped_event_is_told_with_what_brought_it() {
        let mut confirmations = Confirmations::default();
        let events = vec![sent("!r", "$1", 7), sent("!r", "$2", 7)];
        confirmations.sent((7, origin()), events, at(0));
        let held = Sent { carrier: Carrier::Backlog(3), ..sent("!r", "$1", 0).1 };
        confirmations.rewrapped(vec![("!r".to_owned(), held)], at(0));
        let carriers = vec![(Carrier::Envelope(7), Some(origin())), (Carrier::Backlog(3), None)];
        assert_eq!(confirmations.carriers(&event("!r", "$1")), carriers);
        let both = [Carrier::Envelope(7), Carrier::Backlog(3)];
        assert_eq!(confirmations.given_up(&event("!r", "$1"), &both, at(1)), []);
        let finished = confirmations.given_up(&event("!r", "$2"), &both, at(2));
        assert_eq!(finished, [Finished::Envelope { id: 7, origin: origin() }]);
    }

    #[test]
    fn what_another_envelope_brought_meanwhile_is_not_given_up_with_it() {
        let mut confirmations = Confirmations::default();
        for envelope in [7, 8] {
            confirmations.sent((envelope, origin()), vec![sent("!r", "$1", envelope)], at(0));
        }
        let finished = confirmations.given_up(&event("!r", "$1"), &[Carrier::Envelope(7)], at(1));
        assert_eq!(finished, [Finished::Envelope { id: 7, origin: origin() }]);
        assert_eq!(
            confirmations.carriers(&event("!r", "$1")),
            [(Carrier::Envelope(8), Some(origin()))]
        );
    }

    #[test]
    fn an_event_of_the_backlog_is_finished_when_it_is_found() {
        let mut confirmations = Confirmations::default();
        let held = Sent { carrier: Carrier::Backlog(3), ..sent("!r", "$1", 0).1 };
        confirmations.rewrapped(vec![("!r".to_owned(), held)], at(0));
        assert_eq!(confirmations.places("!r"), WINDOW_MAX - 1);
        assert_eq!(confirmations.found(&event("!r", "$1"), at(1)), [Finished::Held(3)]);
    }

    #[test]
    fn rooms_that_the_homeserver_left_are_settled_at_once() {
        let mut confirmations = Confirmations::default();
        confirmations.sent((7, origin()), vec![sent("!r", "$1", 7)], at(0));
        assert_eq!(confirmations.left("!r", at(1)).len(), 1);
    }

    #[test]
    fn what_is_on_its_way_takes_places() {
        let mut confirmations = Confirmations::default();
        let counts = BTreeMap::from([("!r".to_owned(), 30)]);
        confirmations.reserve(&counts, at(0));
        assert_eq!(confirmations.full_rooms(&counts), ["!r"]);
        confirmations.release(&counts);
        assert!(confirmations.full_rooms(&counts).is_empty());
    }

    #[test]
    fn windows_of_quiet_rooms_do_not_add_up() {
        let mut confirmations = Confirmations::default();
        for room in 0..10 * IDLE_ROOMS_MAX {
            let (room, id) = (format!("!{room}"), room as i64);
            confirmations.sent((id, origin()), vec![sent(&room, "$1", id)], at(0));
            confirmations.found(&event(&room, "$1"), at(0));
            assert!(confirmations.rooms.len() <= IDLE_ROOMS_MAX);
        }
        assert!(confirmations.envelopes.is_empty());
    }
}
