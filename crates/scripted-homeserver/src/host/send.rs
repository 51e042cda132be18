//! Sends what waits in the outboxes: to each server one transaction at a time.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use restante_federation::{Identity, Patience, signed_request};
use restante_federation_proto::{RequestTarget, ServerName, escape_path_segment};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::Host;
use crate::outbox::Parcel;
use crate::pdu::canonical;

/// For one transaction, as Synapse's.
const SEND_PATIENCE: Patience =
    Patience { connect: Duration::from_secs(20), answer: Duration::from_secs(60) };

impl Host {
    /// Sees to it that every outbox is being sent.
    pub(super) fn send_waiting(&self) {
        let destinations: Vec<ServerName> =
            self.look(|state| state.outboxes.keys().cloned().collect());
        let mut running = self.running();
        for destination in destinations {
            if running.sending.contains_key(&destination) {
                continue;
            }
            let awake = Arc::new(Notify::new());
            running.sending.insert(destination.clone(), awake.clone());
            let (host, stop) = (self.clone(), running.stop.clone());
            self.spawn(stop, async move { host.send_to(destination, &awake).await });
        }
    }

    /// A server showed that it is there: what waits for it need not wait longer.
    pub(super) fn is_up(&self, server: &ServerName) {
        if let Some(awake) = self.running().sending.get(server) {
            awake.notify_waiters();
        }
    }

    async fn send_to(&self, destination: ServerName, awake: &Notify) {
        while let Some(parcel) = self.next_parcel(&destination) {
            if self.transmit(&destination, &parcel).await {
                self.state().outboxes.entry(destination.clone()).or_default().sent(&parcel);
                continue;
            }
            let wait = {
                let mut state = self.state();
                let habits = state.habits.clone();
                state.outboxes.entry(destination.clone()).or_default().failed(&habits)
            };
            tokio::select! {
                biased;
                () = awake.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn next_parcel(&self, destination: &ServerName) -> Option<Parcel> {
        let mut running = self.running();
        let mut state = self.state();
        let state = &mut *state;
        let rooms = &state.rooms;
        // Synapse sends all that nothing follows, unless the newest event that it owes is among that.
        let catch_up = |room_id: &str, id: &str| match rooms.get(room_id).map(|room| room.newest())
        {
            Some(newest) if !newest.contains(id) => newest.iter().cloned().collect(),
            _ => vec![id.to_owned()],
        };
        let outbox = state.outboxes.get_mut(destination)?;
        let parcel = outbox.next(&state.habits, state.first_txn, catch_up);
        if parcel.is_none() {
            running.sending.remove(destination);
        }
        parcel
    }

    /// Whether the other side took it.
    async fn transmit(&self, destination: &ServerName, parcel: &Parcel) -> bool {
        let target = format!("/_matrix/federation/v1/send/{}", escape_path_segment(&parcel.txn_id));
        let Ok(target) = target.parse::<RequestTarget>() else { return false };
        let (identity, habits, content) = self.contents(parcel);
        let mut wait = habits.repeat_first;
        for _ in 0..=habits.repeats_max {
            let content = Some(canonical(&content));
            let request = signed_request(&identity, Method::PUT, &target, destination, content);
            match self.exchange(destination, request, SEND_PATIENCE).await {
                Some((StatusCode::OK, _)) => return true,
                Some((status, _)) if !is_repeated_after(status) => return false,
                _ => tokio::time::sleep(wait).await,
            }
            wait *= 4;
        }
        false
    }

    fn contents(&self, parcel: &Parcel) -> (Identity, crate::Habits, Value) {
        let now = self.now();
        self.look(|state| {
            let event = |(room_id, id): &(String, String)| {
                state.rooms.get(room_id)?.event(id).map(|pdu| pdu.json.clone())
            };
            let pdus: Vec<Value> = parcel.pdus.iter().filter_map(event).collect();
            let content = json!({
                "origin": state.server_name(), "origin_server_ts": now, "pdus": pdus, "edus": parcel.edus,
            });
            (state.identity.clone(), state.habits.clone(), content)
        })
    }
}

fn is_repeated_after(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}
