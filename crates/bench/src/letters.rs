//! Mail as nodes leave it, with proof, waybill and key document; and letters as homeservers write them: one message of about
//! a kilobyte.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use rand::RngExt as _;
use restante_federation_proto::{
    Clock as _, KeyDocument, ServerName, SignableRequest, SystemClock, canonicalise, mint,
};
use restante_relay_api::endpoints::{SEND, send_relay_target};
use restante_relay_api::{Content, Extras, Proof, Waybill, hex};
use serde_json::json;

use crate::origin::Origin;

/// How long a node's key document is valid.
const KEYS_VALID_FOR: Duration = Duration::from_secs(37 * 24 * 3600);

/// What messages are made of.
const WORDS: &str = "the and you that was for are with his they this have from one had word but not what all were when \
    your can said there use each which she how their will other about out many then them these some her would make \
    like him into time has look two more write see number way could people than first water been call who its now \
    find long down day did get come made may part meeting tomorrow server message yesterday please thanks";

/// Words in one message.
const WORDS_EACH: usize = 60;

/// What one server writes.
pub(crate) struct Letters {
    pub(crate) origin: Origin,
    keys: KeyDocument,
    room: String,
}

impl Letters {
    pub(crate) fn of(origin: Origin) -> Self {
        let keys = mint(&origin.name, &origin.key, None, SystemClock.now().after(KEYS_VALID_FOR));
        let room = format!("!{}:{}", random_text(18), origin.name);
        Self { origin, keys, room }
    }

    /// The deposit of its letter of that number.
    pub(crate) fn letter(
        &self,
        number: u64,
        relay: &ServerName,
        recipient: &ServerName,
    ) -> anyhow::Result<Request<Full<Bytes>>> {
        let content = Content::parse(self.transaction(number).to_string().into())?;
        let txn_id = (SystemClock.now().as_millis() + number).to_string();
        let body = self.with_proof(&content, (&txn_id, number), recipient)?;
        let target = send_relay_target(&txn_id, recipient);
        Ok(self.origin.signed(Method::PUT, &target, relay, body))
    }

    /// The canonical body of a deposit of `content`, with all that a node adds.
    pub(crate) fn with_proof(
        &self,
        content: &Content,
        (txn_id, number): (&str, u64),
        recipient: &ServerName,
    ) -> anyhow::Result<Bytes> {
        let proof = self.proof(txn_id, recipient, content);
        let waybill = self.waybill(number, recipient, content).signed(&self.origin.key);
        let extras = Extras::new(&proof, &waybill, self.keys.raw())?;
        let body = content.to_deposit_body(&extras)?;
        Ok(canonicalise(&body)?.into_owned().into())
    }

    fn transaction(&self, number: u64) -> serde_json::Value {
        let (name, now) = (&self.origin.name, SystemClock.now());
        let ids = |count: usize| -> Vec<String> {
            (0..count).map(|_| format!("${}", random_text(43))).collect()
        };
        let pdu = json!({
            "auth_events": ids(4),
            "content": { "body": message(), "msgtype": "m.text" },
            "depth": number + 7,
            "hashes": { "sha256": random_text(43) },
            "origin_server_ts": now,
            "prev_events": ids(1),
            "room_id": self.room,
            "sender": format!("@somebody:{name}"),
            "signatures": { name.as_str(): { "ed25519:a_bcde": random_text(86) } },
            "type": "m.room.message",
            "unsigned": { "age": 117 },
        });
        json!({ "origin": name, "origin_server_ts": now, "pdus": [pdu], "edus": [] })
    }

    fn proof(&self, txn_id: &str, recipient: &ServerName, content: &Content) -> Proof {
        let uri = format!("{SEND}{txn_id}");
        let send = SignableRequest {
            method: "PUT",
            target: &uri.parse().expect("the endpoint's path is a target"),
            origin: &self.origin.name,
            destination: Some(recipient),
            content: Some(content.canonical()),
        };
        Proof { authorization: send.sign(&self.origin.key).to_string(), uri }
    }

    fn waybill(&self, number: u64, recipient: &ServerName, content: &Content) -> Waybill {
        Waybill {
            origin: self.origin.name.clone(),
            destination: recipient.clone(),
            stream: "bench".to_owned(),
            seq: number + 1,
            content_sha256: hex(content.sha256()),
            capsule_sha256: None,
            deposited_at: SystemClock.now(),
        }
    }
}

fn message() -> String {
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let mut rng = rand::rng();
    let chosen = (0..WORDS_EACH).map(|_| words[rng.random_range(0..words.len())]);
    chosen.collect::<Vec<_>>().join(" ")
}

/// As long as a hash or a signature in base64, and as hard to compress.
pub(crate) fn random_text(letters: usize) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bytes = vec![0_u8; letters];
    rand::rng().fill(&mut bytes[..]);
    bytes.into_iter().map(|byte| char::from(ALPHABET[usize::from(byte % 64)])).collect()
}
