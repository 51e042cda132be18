//! Carries a homeserver's state out: answers others, asks them, and sends.

mod inbound;
mod look;
mod send;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use restante_federation::{Exchange, Patience, Peer, collect_limited, signed_request};
use restante_federation_proto::{Clock, KeyDocument, RequestTarget, ServerName, Timestamp};
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::homeserver::Homeserver;
use crate::pdu::{Pdu, canonical};
use crate::room::RoomError;

/// For a question to another server, as Synapse's.
const QUESTION_PATIENCE: Patience =
    Patience { connect: Duration::from_secs(10), answer: Duration::from_secs(20) };

/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a homeserver needs to run.
pub struct HostParts {
    /// Its state.
    pub homeserver: Homeserver,
    /// How it reaches others; behind a node, by the node.
    pub exchange: Arc<dyn Exchange>,
    /// Its clock.
    pub clock: Arc<dyn Clock>,
}

/// A homeserver that runs; clones are the same one. It must be used within a tokio runtime.
#[derive(Clone)]
pub struct Host {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<Homeserver>,
    exchange: Arc<dyn Exchange>,
    clock: Arc<dyn Clock>,
    running: Mutex<Running>,
}

/// What a restart forgets: the tasks of one run.
#[derive(Default)]
struct Running {
    stop: CancellationToken,
    /// Servers to which a task sends, each with what ends its back-off.
    sending: BTreeMap<ServerName, Arc<Notify>>,
    /// Whose turn it is to ask a server for its keys: one at a time, and the others use the answer.
    fetching: BTreeMap<ServerName, Arc<tokio::sync::Mutex<()>>>,
    /// Rooms whose staged events a task looks at.
    looking: BTreeSet<String>,
}

impl Host {
    /// Starts it.
    pub fn start(parts: HostParts) -> Self {
        let HostParts { homeserver, exchange, clock } = parts;
        let (state, running) = (Mutex::new(homeserver), Mutex::default());
        let host = Self { shared: Arc::new(Shared { state, exchange, clock, running }) };
        host.resume();
        host
    }

    /// Reads its state.
    pub fn look<T>(&self, read: impl FnOnce(&Homeserver) -> T) -> T {
        read(&self.state())
    }

    /// Stops it: whatever it was doing ends where it is. [`Host::restart`] starts it again.
    pub fn stop(&self) {
        std::mem::take(&mut *self.running()).stop.cancel();
    }

    /// Starts it again with what it keeps on disk.
    pub fn restart(&self) {
        self.stop();
        self.state().restart();
        self.resume();
    }

    /// Its user writes `body` in a room, after `follows` or else after the newest events.
    pub fn say(
        &self,
        room_id: &str,
        body: &str,
        follows: Option<BTreeSet<String>>,
    ) -> Result<Pdu, RoomError> {
        let now = self.now();
        let pdu = self.state().say(room_id, body, follows, now)?;
        self.send_waiting();
        Ok(pdu)
    }

    /// Its user writes any other event.
    pub fn write(
        &self,
        room_id: &str,
        kind: &str,
        state_key: Option<&str>,
        content: Value,
    ) -> Result<Pdu, RoomError> {
        let now = self.now();
        let pdu = self.state().write(room_id, kind, state_key, content, None, now)?;
        self.send_waiting();
        Ok(pdu)
    }

    /// Its user sends a message to the devices of the user of `destination`.
    pub fn to_device(&self, destination: &ServerName, text: &str) {
        self.state().send_to_device(destination, text);
        self.send_waiting();
    }

    /// Its user types.
    pub fn typing(&self, destination: &ServerName, room_id: &str) {
        self.state().typing(destination, room_id);
        self.send_waiting();
    }

    fn resume(&self) {
        self.send_waiting();
        for room_id in self.look(|state| state.staging.rooms()) {
            self.look_at_staged(room_id);
        }
    }

    fn state(&self) -> MutexGuard<'_, Homeserver> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.shared.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// Runs `work` until it ends or the homeserver stops.
    fn spawn(
        &self,
        stop: CancellationToken,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> tokio::task::JoinHandle<Option<()>> {
        tokio::spawn(async move { stop.run_until_cancelled_owned(work).await })
    }

    /// Asks another server; `None` if there is no answer with 200 and JSON.
    async fn ask(
        &self,
        server: &ServerName,
        method: Method,
        target: &str,
        content: Option<&Value>,
    ) -> Option<Value> {
        let target: RequestTarget = target.parse().ok()?;
        let request = {
            let identity = &self.state().identity;
            signed_request(identity, method, &target, server, content.map(canonical))
        };
        let (status, body) = self.exchange(server, request, QUESTION_PATIENCE).await?;
        if status != StatusCode::OK {
            return None;
        }
        serde_json::from_slice(&body).ok()
    }

    async fn exchange(
        &self,
        server: &ServerName,
        request: Request<restante_federation::Body>,
        patience: Patience,
    ) -> Option<(StatusCode, Bytes)> {
        let asked = async {
            let peer = Peer::from(server.clone());
            let answer = self.shared.exchange.exchange(&peer, request, patience).await.ok()?;
            let status = answer.status();
            let body = collect_limited(answer.into_body(), ANSWER_BYTES_MAX).await.ok()?;
            Some((status, body))
        };
        tokio::time::timeout(patience.connect + patience.answer, asked).await.ok()?
    }

    /// Asks a server for its own keys, unless somebody else has got them meanwhile.
    async fn fetch_keys(&self, server: &ServerName) {
        let valid_until = |host: &Self| {
            host.look(|state| state.keys.document(server).map(KeyDocument::valid_until))
        };
        let before = valid_until(self);
        let turn = self.running().fetching.entry(server.clone()).or_default().clone();
        let _turn = turn.lock().await;
        if valid_until(self) != before {
            return;
        }
        let target = "/_matrix/key/v2/server";
        let answer = self.ask(server, Method::GET, target, None).await;
        let document = answer.and_then(|answer| KeyDocument::parse(answer.to_string().into()).ok());
        if let Some(document) = document.filter(|document| document.server_name() == server) {
            self.state().keys.learn(document);
        }
    }
}

fn json_response((status, body): (StatusCode, Value)) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
