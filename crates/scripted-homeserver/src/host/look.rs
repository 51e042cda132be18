//! Looks at staged events one by one, and closes gaps by asking whoever sent the event.

use std::collections::BTreeSet;

use http::Method;
use restante_federation_proto::{ServerName, escape_path_segment};
use serde_json::{Value, json};

use super::Host;
use crate::pdu::Pdu;
use crate::staging::Staged;

/// Questions for what lies further back, as a user who scrolls up makes them.
const SCROLLS_MAX: usize = 20;

impl Host {
    /// Sees to it that the room's staged events are looked at.
    pub(super) fn look_at_staged(&self, room_id: String) {
        let mut running = self.running();
        if running.looking.insert(room_id.clone()) {
            let (host, stop) = (self.clone(), running.stop.clone());
            self.spawn(stop, async move {
                while let Some(staged) = host.next_staged(&room_id) {
                    host.look_at(staged).await;
                    host.state().staging.done(&room_id);
                }
            });
        }
    }

    fn next_staged(&self, room_id: &str) -> Option<Staged> {
        let mut running = self.running();
        let staged = self.state().staging.first(room_id);
        if staged.is_none() {
            running.looking.remove(room_id);
        }
        staged
    }

    async fn look_at(&self, staged: Staged) {
        let time = self.look(|state| state.habits.staging_time);
        tokio::time::sleep(time).await;
        let Staged { pdu, sender } = staged;
        if self.has(&pdu) {
            return;
        }
        if !self.missing_before(&pdu).is_empty() {
            self.close_gap(&pdu, &sender).await;
        }
        if self.missing_before(&pdu).is_empty() {
            self.state().store(pdu);
        } else {
            self.state().drop_event(&pdu.id, "what it follows could not be had");
        }
    }

    fn has(&self, pdu: &Pdu) -> bool {
        self.look(|state| state.rooms.get(&pdu.room_id).is_some_and(|room| room.has(&pdu.id)))
    }

    fn missing_before(&self, pdu: &Pdu) -> BTreeSet<String> {
        let missing =
            self.look(|state| state.rooms.get(&pdu.room_id).map(|room| room.missing_before(pdu)));
        missing.unwrap_or_default()
    }

    /// Asks the sender for what lies before `pdu`, and stores what can be stored of the answer.
    async fn close_gap(&self, pdu: &Pdu, sender: &ServerName) {
        let room_id = escape_path_segment(&pdu.room_id);
        let target = format!("/_matrix/federation/v1/get_missing_events/{room_id}");
        let asked = self.look(|state| {
            let newest = state.rooms.get(&pdu.room_id).map(|room| room.newest().clone());
            json!({
                "limit": state.habits.missing_events_max, "min_depth": 0,
                "earliest_events": newest.unwrap_or_default(), "latest_events": [pdu.id],
            })
        });
        let answer = self.ask(sender, Method::POST, &target, Some(&asked)).await;
        for pulled in self.read(&pdu.room_id, answer, "events") {
            if !self.has(&pulled) {
                self.pull(pulled, sender).await;
            }
        }
    }

    /// Stores an event of an answer, with all that lies before it if its state can be had.
    async fn pull(&self, pulled: Pdu, sender: &ServerName) {
        if self.look(|state| state.failed_pulls.is_marked(&pulled.id))
            || !self.is_genuine(&pulled).await
        {
            return;
        }
        let missing = self.missing_before(&pulled);
        if !missing.is_empty() && !self.scroll_back(&pulled, missing, sender).await {
            self.state().failed_pulls.mark(&pulled.id);
            return;
        }
        self.state().store(pulled);
    }

    /// Fetches what lies before `missing`, if the sender knows the state there.
    async fn scroll_back(
        &self,
        pulled: &Pdu,
        missing: BTreeSet<String>,
        sender: &ServerName,
    ) -> bool {
        let room_id = escape_path_segment(&pulled.room_id);
        for id in &missing {
            let id = escape_path_segment(id);
            let target = format!("/_matrix/federation/v1/state_ids/{room_id}?event_id={id}");
            if self.ask(sender, Method::GET, &target, None).await.is_none() {
                return false;
            }
        }
        let (mut found, mut missing) = (Vec::<Pdu>::new(), missing);
        for _ in 0..SCROLLS_MAX {
            let from: String =
                missing.iter().map(|id| format!("&v={}", escape_path_segment(id))).collect();
            let target = format!("/_matrix/federation/v1/backfill/{room_id}?limit=100{from}");
            let answer = self.ask(sender, Method::GET, &target, None).await;
            for older in self.read(&pulled.room_id, answer, "pdus") {
                if !self.has(&older) && self.is_genuine(&older).await {
                    found.push(older);
                }
            }
            let ids: BTreeSet<&String> = found.iter().map(|pdu| &pdu.id).collect();
            let before = found.iter().chain([pulled]).flat_map(|pdu| self.missing_before(pdu));
            missing = before.filter(|id| !ids.contains(id)).collect();
            if missing.is_empty() {
                found.sort_by_key(|pdu| (pdu.depth, pdu.id.clone()));
                let mut state = self.state();
                found.into_iter().for_each(|pdu| state.store(pdu));
                return true;
            }
        }
        false
    }

    /// The events of an answer about a room, by depth.
    fn read(&self, room_id: &str, answer: Option<Value>, member: &str) -> Vec<Pdu> {
        let version = self.look(|state| state.rooms.get(room_id).map(|room| room.version()));
        let (Some(answer), Some(version)) = (answer, version) else { return Vec::new() };
        let events = answer[member].as_array().map(Vec::as_slice).unwrap_or_default();
        let events = events.iter().filter_map(|json| Pdu::read(json.clone(), version));
        let mut events: Vec<Pdu> = events.filter(|pdu| pdu.room_id == room_id).collect();
        events.sort_by_key(|pdu| (pdu.depth, pdu.id.clone()));
        events
    }
}
