//! A homeserver in memory.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::{Method, Request, Response, header};
use restante_federation::{Body, Exchange, ExchangeError, Patience, Peer, collect_limited, full};
use restante_federation_proto::event_id;
use restante_relay_api::endpoints::SEND;

use super::VERSION;
use crate::test_site::OWN_NAME;

/// Staged events that the homeserver keeps per room, as Synapse does.
const STAGED_MAX: usize = 100;

/// A homeserver that takes transactions like Synapse: once each, staging events, and storing them only after their
/// predecessors.
#[derive(Default)]
pub(crate) struct FakeHomeserver {
    state: Mutex<HomeserverState>,
    defects: AtomicU32,
    is_mute: AtomicBool,
}

#[derive(Default)]
struct HomeserverState {
    is_down: bool,
    answers: VecDeque<(u16, &'static str)>,
    seen: HashSet<(String, String)>,
    staged: BTreeMap<String, VecDeque<(String, Vec<String>)>>,
    stored: BTreeMap<String, Vec<String>>,
    edus: usize,
    transactions: Vec<String>,
    passed: Vec<String>,
    most_staged: usize,
    own_transactions: usize,
    acls: BTreeMap<String, serde_json::Value>,
    ends_on_old_branch: bool,
    /// Events that it takes and does not store, and how often.
    drops: BTreeMap<String, u32>,
}

impl FakeHomeserver {
    fn state(&self) -> std::sync::MutexGuard<'_, HomeserverState> {
        self.state.lock().unwrap()
    }

    /// The next so many transactions meet a defect in this program.
    pub(crate) fn panic_next(&self, transactions: u32) {
        self.defects.store(transactions, Ordering::Relaxed);
    }

    /// It answers the next transaction never.
    pub(crate) fn is_mute_once(&self) {
        self.is_mute.store(true, Ordering::Relaxed);
    }

    /// Waits until it has the transaction that it does not answer.
    pub(crate) async fn has_gone_mute(&self) {
        while self.is_mute.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn joins(&self, room: &str, event_id: &str) {
        self.state().stored.insert(room.to_owned(), vec![event_id.to_owned()]);
    }

    pub(crate) fn has_acl(&self, room: &str, content: serde_json::Value) {
        self.state().acls.insert(room.to_owned(), content);
    }

    /// The last events of its rooms lie on a branch from before it joined.
    pub(crate) fn ends_on_old_branch(&self) {
        self.state().ends_on_old_branch = true;
    }

    /// It takes `event_id` and does not store it, so many times.
    pub(crate) fn drops(&self, event_id: &str, times: u32) {
        self.state().drops.insert(event_id.to_owned(), times);
    }

    /// How many transactions came in its own name.
    pub(crate) fn own_transactions(&self) -> usize {
        self.state().own_transactions
    }

    /// An event comes to be stored, as if another server had sent it.
    pub(crate) fn gets(&self, room: &str, event_id: &str) {
        self.state().stored.get_mut(room).unwrap().push(event_id.to_owned());
    }

    pub(crate) fn is_down(&self, is_down: bool) {
        self.state().is_down = is_down;
    }

    /// The next transactions get these answers.
    pub(crate) fn answer_next(&self, answers: &[(u16, &'static str)]) {
        self.state().answers.extend(answers);
    }

    pub(crate) fn forget_answers(&self) {
        self.state().answers.clear();
    }

    /// Everything stored in `room` after what it began with.
    pub(crate) fn stored(&self, room: &str) -> Vec<String> {
        self.state().stored.get(room).map(|events| events[1..].to_vec()).unwrap_or_default()
    }

    /// Ids of all transactions that were put, repeated ones included.
    pub(crate) fn transactions(&self) -> Vec<String> {
        self.state().transactions.clone()
    }

    pub(crate) fn passed(&self) -> Vec<String> {
        self.state().passed.clone()
    }

    pub(crate) fn edus(&self) -> usize {
        self.state().edus
    }

    pub(crate) fn most_staged(&self) -> usize {
        self.state().most_staged
    }
}

impl HomeserverState {
    fn send(&mut self, authorization: &str, txn_id: &str, body: &[u8]) -> (u16, String) {
        let is_own = authorization.contains(&format!("origin=\"{OWN_NAME}\""));
        if is_own {
            self.own_transactions += 1;
        } else {
            self.transactions.push(txn_id.to_owned());
        }
        if let Some((status, json)) = self.answers.pop_front() {
            return (status, json.to_owned());
        }
        if self.seen.insert((authorization.to_owned(), txn_id.to_owned())) {
            let body: serde_json::Value = serde_json::from_slice(body).unwrap();
            self.edus += body["edus"].as_array().map_or(0, Vec::len);
            for pdu in body["pdus"].as_array().into_iter().flatten() {
                self.stage(pdu);
            }
        }
        (200, r#"{"pdus":{}}"#.to_owned())
    }

    fn stage(&mut self, pdu: &serde_json::Value) {
        let id = event_id(pdu.to_string().as_bytes(), VERSION).unwrap();
        let prev = pdu["prev_events"].as_array().unwrap().iter();
        let prev = prev.map(|prev| prev.as_str().unwrap().to_owned()).collect();
        if let Some(times) = self.drops.get_mut(&id).filter(|times| **times > 0) {
            *times -= 1;
            return;
        }
        let staged = self.staged.entry(pdu["room_id"].as_str().unwrap().to_owned()).or_default();
        if staged.len() < STAGED_MAX {
            staged.push_back((id, prev));
        }
        self.most_staged = self.most_staged.max(staged.len());
    }

    /// Some time passed: some staged events are stored, or dropped.
    fn work(&mut self, room: &str) {
        let Some(stored) = self.stored.get_mut(room) else { return };
        let staged = self.staged.entry(room.to_owned()).or_default();
        for (id, prev) in staged.drain(..staged.len().min(15)) {
            if prev.iter().all(|prev| stored.contains(prev)) && !stored.contains(&id) {
                stored.push(id);
            }
        }
    }

    fn answer(
        &mut self,
        target: &str,
        method: &Method,
        authorization: &str,
        body: &[u8],
    ) -> (u16, String) {
        if let Some(txn_id) = target.strip_prefix(SEND).filter(|_| *method == Method::PUT) {
            return self.send(authorization, txn_id, body);
        }
        if let Some(rest) = target.strip_prefix("/_matrix/federation/v1/make_join/") {
            let room = rest.split('/').next().unwrap().replace("%21", "!");
            if let Some(stored) = self.stored.get(&room)
                && !rest.ends_with("ver=zzz")
            {
                let template = serde_json::json!({"event": {"prev_events": [stored.last()]}});
                return (200, template.to_string());
            }
            if self.stored.contains_key(&room) {
                let json = r#"{"errcode":"M_INCOMPATIBLE_ROOM_VERSION","room_version":"10"}"#;
                return (400, json.to_owned());
            }
            return (404, "{}".to_owned());
        }
        if let Some(rest) = target.strip_prefix("/_matrix/federation/v1/state_ids/") {
            let (room, id) = rest.split_once("?event_id=").unwrap();
            let room = room.replace("%21", "!");
            self.work(&room);
            let Some(stored) = self.stored.get(&room) else { return (403, "{}".to_owned()) };
            let is_stored = stored.iter().any(|stored| stored == id);
            return (if is_stored { 200 } else { 404 }, "{}".to_owned());
        }
        if let Some(rest) = target.strip_prefix("/_matrix/federation/v1/state/") {
            let (room, id) = rest.split_once("?event_id=").unwrap();
            let room = room.replace("%21", "!");
            if id == "$branch" {
                return (200, r#"{"pdus":[]}"#.to_owned());
            }
            let mut pdus = vec![serde_json::json!({
                "type": "m.room.member", "state_key": format!("@u:{OWN_NAME}"),
                "content": {"membership": "join"},
            })];
            pdus.extend(self.acls.get(&room).map(|content| {
                serde_json::json!({"type": "m.room.server_acl", "state_key": "", "content": content})
            }));
            return (200, serde_json::json!({ "pdus": pdus }).to_string());
        }
        if target.starts_with("/_matrix/federation/v1/timestamp_to_event/") {
            // A branch of ten days, on which there is an event in each millisecond.
            let branch: RangeInclusive<u64> = 100_000_000..=1_000_000_000;
            let (_, until) = target.split_once("?ts=").unwrap();
            let until: u64 = until.split('&').next().unwrap().parse().unwrap();
            let (id, at) = match self.ends_on_old_branch && until >= *branch.start() {
                true => ("$branch", until.min(*branch.end())),
                false => ("$start", 1),
            };
            let event = serde_json::json!({"event_id": id, "origin_server_ts": at});
            return (200, event.to_string());
        }
        if let Some(id) = target.strip_prefix("/_matrix/federation/v1/event/") {
            let is_stored = self.stored.values().flatten().any(|stored| stored == id);
            let pdus = r#"{"pdus":[{"type":"m.room.message","content":{}}]}"#;
            return if is_stored { (200, pdus.to_owned()) } else { (404, "{}".to_owned()) };
        }
        self.passed.push(target.to_owned());
        (200, "{}".to_owned())
    }
}

#[async_trait]
impl Exchange for FakeHomeserver {
    async fn exchange(
        &self,
        peer: &Peer,
        request: Request<Body>,
        _: Patience,
    ) -> Result<Response<Body>, ExchangeError> {
        let (parts, body) = request.into_parts();
        let body = collect_limited(body, usize::MAX).await.unwrap();
        tokio::task::yield_now().await;
        let defects = self.defects.load(Ordering::Relaxed);
        if defects > 0 && parts.method == Method::PUT {
            self.defects.store(defects - 1, Ordering::Relaxed);
            panic!("a defect");
        }
        if parts.method == Method::PUT && self.is_mute.swap(false, Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let mut state = self.state();
        if state.is_down {
            let server = peer.name.clone();
            return Err(ExchangeError::Connect { server, source: "connection refused".into() });
        }
        let authorization = parts.headers.get(header::AUTHORIZATION);
        let authorization = authorization.map_or("", |value| value.to_str().unwrap()).to_owned();
        let target = parts.uri.to_string();
        let (status, json) = state.answer(&target, &parts.method, &authorization, &body);
        Ok(Response::builder().status(status).body(full(json)).unwrap())
    }
}
