//! What other servers ask, and the transactions that they send.

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use restante_federation_proto::ServerName;
use serde_json::{Map, Value, json};

use super::{Host, json_response};
use crate::answers::{Answer, refused};
use crate::pdu::Pdu;
use crate::request::{Claim, Question};
use crate::staging::Staged;
use crate::transactions::Standing;

impl Host {
    /// Answers a request. What it has begun to do with a transaction goes on when the caller is gone.
    pub async fn answer(&self, request: Request<Bytes>) -> Response<Bytes> {
        let (parts, body) = request.into_parts();
        let question = Question::read(&parts, &body);
        let unsigned = self.look(|state| state.answer_unsigned(&question, self.now()));
        if let Some(answer) = unsigned {
            return json_response(answer);
        }
        let origin = match self.authenticate(&parts, &body).await {
            Ok(origin) => origin,
            Err(refusal) => return json_response(refusal),
        };
        self.is_up(&origin);
        let path: Vec<&str> = question.path.iter().map(String::as_str).collect();
        json_response(match (question.method, &path[..]) {
            (&Method::PUT, ["_matrix", "federation", "v1", "send", txn_id]) => {
                self.take(origin, txn_id, &body).await
            }
            _ => self.look(|state| state.answer(&question, &origin)),
        })
    }

    async fn authenticate(&self, parts: &Parts, body: &[u8]) -> Result<ServerName, Answer> {
        let claim = self.look(|state| Claim::read(parts, body, state.server_name())).map_err(
            |(status, error)| (status, json!({"errcode": "M_UNAUTHORIZED", "error": error})),
        )?;
        let now = self.now();
        let known = |host: &Self| host.look(|state| state.key(&claim.origin, &claim.key_id, now));
        let mut key = known(self);
        if key.is_none() {
            self.fetch_keys(&claim.origin).await;
            key = known(self);
        }
        match key {
            Some(key) if claim.holds(&key) => Ok(claim.origin),
            Some(_) => Err(unauthorized("Invalid signature")),
            None => Err(unauthorized("Failed to find the key of the origin")),
        }
    }

    /// Takes a transaction once.
    async fn take(&self, origin: ServerName, txn_id: &str, body: &[u8]) -> Answer {
        let Ok(transaction) = serde_json::from_slice::<Value>(body) else {
            return refused(StatusCode::BAD_REQUEST, "M_NOT_JSON");
        };
        let standing = self.state().transactions.begin(&origin, txn_id);
        match standing {
            Standing::Seen(answer) => return (StatusCode::OK, answer),
            Standing::Busy => return refused(StatusCode::TOO_MANY_REQUESTS, "M_UNKNOWN"),
            Standing::Begun => {}
        }
        let (host, stop) = (self.clone(), self.running().stop.clone());
        let (txn_id, (reply, answer)) = (txn_id.to_owned(), tokio::sync::oneshot::channel());
        self.spawn(stop, async move {
            let taken = host.take_parts(&origin, &transaction).await;
            host.state().transactions.finish(&origin, &txn_id, taken.clone());
            // The caller may be gone; what it sent was taken all the same.
            let _ = reply.send(taken);
        });
        match answer.await {
            Ok(taken) => (StatusCode::OK, taken),
            Err(_) => refused(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN"),
        }
    }

    async fn take_parts(&self, origin: &ServerName, transaction: &Value) -> Value {
        let list = |name: &str| transaction[name].as_array().map(Vec::as_slice).unwrap_or_default();
        for edu in list("edus") {
            self.state().take_edu(origin, edu);
        }
        let mut answers = Map::new();
        for json in list("pdus") {
            let Some((id, refusal)) = self.take_pdu(origin, json).await else { continue };
            let answer = refusal.map_or_else(|| json!({}), |error| json!({ "error": error }));
            answers.insert(id, answer);
        }
        json!({ "pdus": answers })
    }

    /// The event's id and why it is refused; `None` for what is left out without a word.
    async fn take_pdu(
        &self,
        origin: &ServerName,
        json: &Value,
    ) -> Option<(String, Option<&'static str>)> {
        let (pdu, permitted) = self.look(|state| {
            let room = state.rooms.get(json["room_id"].as_str()?)?;
            Some((Pdu::read(json.clone(), room.version())?, room.permits(origin)))
        })?;
        if !permitted {
            return Some((pdu.id, Some("Server is banned from room")));
        }
        if !self.is_genuine(&pdu).await {
            return Some((pdu.id, Some("The signature or hash is wrong, or its key can't be had")));
        }
        let (id, room_id) = (pdu.id.clone(), pdu.room_id.clone());
        self.state().stage(Staged { pdu, sender: origin.clone() });
        self.look_at_staged(room_id);
        Some((id, None))
    }

    /// Checks signature and hash, and fetches the key if need be.
    pub(super) async fn is_genuine(&self, pdu: &Pdu) -> bool {
        let Some(key_id) = pdu.key_id() else { return false };
        let known = |host: &Self| host.look(|state| state.key(&pdu.server, &key_id, pdu.sent_at));
        let mut key = known(self);
        if key.is_none() {
            self.fetch_keys(&pdu.server).await;
            key = known(self);
        }
        let version = self.look(|state| state.rooms.get(&pdu.room_id).map(|room| room.version()));
        match (key, version) {
            (Some(key), Some(version)) => pdu.is_genuine(version, &key_id, &key),
            _ => false,
        }
    }
}

fn unauthorized(text: &str) -> Answer {
    (StatusCode::UNAUTHORIZED, json!({"errcode": "M_UNAUTHORIZED", "error": text}))
}
