//! Servers that write, and what their nodes leave.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use restante_federation_proto::{
    RequestTarget, ServerName, SignableRequest, SigningKey, Timestamp, event_id, mint,
};
use restante_relay_api::endpoints::SEND;
use restante_relay_api::{Capsule, Content, Extras, Proof, Waybill, WireEnvelope, hex};

use super::VERSION;
use crate::inbox;
use crate::test_site::{BEGINNING, OWN_NAME, identity, name};

/// One envelope as an origin's node leaves it.
#[derive(Clone)]
pub(crate) struct Letter {
    pub(crate) envelope: WireEnvelope,
}

impl Letter {
    /// The same, with the content changed by somebody in between.
    pub(crate) fn altered(&self) -> Self {
        let mut envelope = self.envelope.clone();
        let content = String::from_utf8(envelope.content.to_vec()).unwrap();
        let altered = content.replace("hello", "hullo");
        assert_ne!(content, altered);
        envelope.sha256 = hex(Content::parse(altered.clone().into()).unwrap().sha256());
        envelope.content = altered.into();
        Self { envelope }
    }

    /// The same, with this relay record beside it.
    pub(crate) fn with_record(&self, record: &[u8]) -> Self {
        let mut envelope = self.envelope.clone();
        let extras = Extras::parse(envelope.extras.clone()).unwrap();
        envelope.extras = extras.with_record(record).unwrap().json;
        Self { envelope }
    }

    /// The same, with another event in the capsule.
    pub(crate) fn with_altered_capsule(&self) -> Self {
        let mut envelope = self.envelope.clone();
        let extras = String::from_utf8(envelope.extras.to_vec()).unwrap();
        let altered = extras.replace("hello", "hullo");
        assert_ne!(extras, altered);
        envelope.extras = altered.into();
        Self { envelope }
    }

    /// The same, without its waybill, or its capsule.
    pub(crate) fn without(&self, member: &str) -> Self {
        let mut envelope = self.envelope.clone();
        let mut extras: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&envelope.extras).unwrap();
        assert!(extras.remove(member).is_some(), "{extras:?}");
        envelope.extras = serde_json::to_vec(&extras).unwrap().into();
        Self { envelope }
    }

    pub(crate) fn without_proof(&self) -> Self {
        let mut envelope = self.envelope.clone();
        envelope.extras = Bytes::new();
        Self { envelope }
    }

    /// The Authorization header of its proof.
    pub(crate) fn authorization(&self) -> String {
        let extras = Extras::parse(self.envelope.extras.clone()).unwrap();
        extras.proof.unwrap().authorization
    }

    pub(crate) fn waybill_header(&self) -> String {
        let extras = Extras::parse(self.envelope.extras.clone()).unwrap();
        Waybill::to_header(&extras.waybill.unwrap())
    }
}

/// A server that writes into a room, and its node.
pub(crate) struct Writer {
    origin: restante_federation::Identity,
    stream: String,
    seq: u64,
    last: BTreeMap<String, String>,
    pub(crate) written: Vec<String>,
    signed_at: Timestamp,
}

impl Writer {
    pub(crate) fn new(origin: &str) -> Self {
        Self {
            origin: identity(origin),
            stream: format!("stream of {origin}"),
            seq: 0,
            last: BTreeMap::new(),
            written: Vec::new(),
            signed_at: BEGINNING,
        }
    }

    /// With a key of its own choice.
    pub(crate) fn impostor(origin: &str) -> Self {
        let mut writer = Self::new(origin);
        writer.origin.key = identity("impostor.test").key;
        writer
    }

    /// Its server changes its key.
    pub(crate) fn changes_its_key(&mut self) {
        let seed = [7; 32];
        self.origin.key = SigningKey::from_seed("ed25519:2".parse().unwrap(), &seed).into();
    }

    pub(crate) fn signs_at(mut self, signed_at: Timestamp) -> Self {
        self.signed_at = signed_at;
        self
    }

    pub(crate) fn document(&self) -> restante_federation_proto::KeyDocument {
        let valid_until = BEGINNING.after(Duration::from_secs(37 * 24 * 3600));
        mint(&self.origin.server_name, &self.origin.key, None, valid_until)
    }

    /// A message after the last one in `room`; the first follows `$start`.
    pub(crate) fn message(&mut self, room: &str) -> Letter {
        let pdu = self.draft(room);
        self.letter(&[pdu], &[])
    }

    /// A message after the last one in `room` that is not sent.
    pub(crate) fn draft(&mut self, room: &str) -> serde_json::Value {
        let prev = self.last.get(room).cloned().unwrap_or_else(|| "$start".to_owned());
        let mut pdu = serde_json::json!({
            "type": "m.room.message", "room_id": room, "sender": format!("@x:{}", self.origin.server_name),
            "content": {"body": "hello"}, "prev_events": [prev], "auth_events": [], "depth": self.written.len(),
            "origin_server_ts": self.signed_at,
        });
        let hash = inbox::content_hash::content_hash(pdu.to_string().as_bytes()).unwrap();
        pdu["hashes"] = serde_json::json!({ "sha256": hash });
        let id = event_id(pdu.to_string().as_bytes(), VERSION).unwrap();
        self.last.insert(room.to_owned(), id.clone());
        self.written.push(id);
        pdu
    }

    /// A message after `prev`, and nothing else follows it by itself; its id.
    pub(crate) fn draft_after(&mut self, room: &str, prev: &[&str]) -> (serde_json::Value, String) {
        let mut pdu = self.draft(room);
        pdu["prev_events"] = prev.into();
        let id = event_id(pdu.to_string().as_bytes(), VERSION).unwrap();
        *self.written.last_mut().unwrap() = id.clone();
        self.last.insert(room.to_owned(), id.clone());
        (pdu, id)
    }

    pub(crate) fn edu(&mut self) -> Letter {
        self.letter(&[], &[serde_json::json!({"edu_type": "m.direct_to_device", "content": {}})])
    }

    /// A transaction with a capsule.
    pub(crate) fn letter_with(
        &mut self,
        pdus: &[serde_json::Value],
        enclosed: &[serde_json::Value],
    ) -> Letter {
        let enclosed: Vec<Bytes> = enclosed.iter().map(|pdu| pdu.to_string().into()).collect();
        self.make_letter(self.next_txn(), pdus, &[], Some(Capsule::new(&enclosed, []).unwrap()))
    }

    pub(crate) fn letter(
        &mut self,
        pdus: &[serde_json::Value],
        edus: &[serde_json::Value],
    ) -> Letter {
        self.make_letter(self.next_txn(), pdus, edus, None)
    }

    /// Another body under the transaction id of the first one.
    pub(crate) fn letter_again(
        &mut self,
        pdus: &[serde_json::Value],
        edus: &[serde_json::Value],
    ) -> Letter {
        self.make_letter("t1".to_owned(), pdus, edus, None)
    }

    /// The same request, as old servers sign it.
    pub(crate) fn authorization_without_destination(&self, letter: &Letter) -> String {
        let target = format!("{SEND}{}", letter.envelope.txn_id).parse().unwrap();
        let content = Content::parse(letter.envelope.content.clone()).unwrap();
        self.sign(&target, None, content.canonical())
    }

    fn sign(
        &self,
        target: &RequestTarget,
        destination: Option<&ServerName>,
        content: &[u8],
    ) -> String {
        let request = SignableRequest {
            method: "PUT",
            target,
            origin: &self.origin.server_name,
            destination,
            content: Some(content),
        };
        request.sign(&self.origin.key).to_string()
    }

    fn next_txn(&self) -> String {
        format!("t{}", self.seq + 1)
    }

    fn make_letter(
        &mut self,
        txn_id: String,
        pdus: &[serde_json::Value],
        edus: &[serde_json::Value],
        capsule: Option<Capsule>,
    ) -> Letter {
        self.seq += 1;
        let origin = &self.origin.server_name;
        let content = serde_json::json!({
            "origin": origin, "origin_server_ts": self.signed_at, "pdus": pdus, "edus": edus,
        });
        let content = Content::parse(content.to_string().into()).unwrap();
        let target: RequestTarget = format!("{SEND}{txn_id}").parse().unwrap();
        let destination = name(OWN_NAME);
        let authorization = self.sign(&target, Some(&destination), content.canonical());
        let proof = Proof { uri: target.as_str().to_owned(), authorization };
        let waybill = Waybill {
            origin: origin.clone(),
            destination,
            stream: self.stream.clone(),
            seq: self.seq,
            content_sha256: hex(content.sha256()),
            capsule_sha256: capsule.as_ref().map(|capsule| hex(capsule.sha256())),
            deposited_at: self.signed_at,
        };
        let waybill = waybill.signed(&self.origin.key);
        let extras = Extras::new(&proof, &waybill, self.document().raw()).unwrap();
        let extras = match capsule {
            Some(capsule) => extras.with_capsule(&capsule).unwrap(),
            None => extras,
        };
        let envelope = WireEnvelope {
            id: 0,
            sha256: hex(content.sha256()),
            origin: origin.clone(),
            txn_id,
            deposited_at: self.signed_at,
            content: content.raw().clone(),
            extras: extras.json,
        };
        Letter { envelope }
    }
}
