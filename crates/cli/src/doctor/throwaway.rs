//! Two servers that live for one examination: their names are their keys, so that nobody has to know them.

use std::sync::Arc;

use http::{Method, StatusCode};
use rand::RngExt as _;
use restante_federation::Identity;
use restante_federation_proto::{
    Clock as _, KeyId, RequestTarget, ServerName, SignableRequest, SigningKey, SystemClock,
    canonicalise,
};
use restante_relay_api::endpoints::{
    COLLECT, MAILBOX, PROOF_MEMBER, RELAY_TXN, SEND, send_relay_target,
};
use restante_relay_api::{
    CollectAcknowledgement, CollectRequest, CollectResponse, Content, Extras, LeaveRequest,
    LeftMail, Proof, RecordedRelay, RegistrationRequest, RelayRecord, Senders,
};
use serde_json::json;
use serde_json::value::RawValue;

use super::caller::{Answer, Callee};

/// Should a doctor end before it has left, the mail it left is gone after an hour.
const TIME_TO_LIVE_MS: u64 = 3_600_000;

/// Bytes that one collect may bring: the largest deposit comes alone in any case.
const COLLECT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Who sends and who receives.
pub(super) struct Throwaway {
    pub(super) sender: Identity,
    pub(super) recipient: Identity,
}

/// A transaction of the sender for the recipient.
pub(super) struct Parcel {
    pub(super) txn_id: String,
    pub(super) content: Content,
}

impl Throwaway {
    /// Two that nobody has seen before.
    pub(super) fn new() -> Self {
        Self { sender: identity(), recipient: identity() }
    }

    /// Registers the recipient: mail may come from the sender alone.
    pub(super) async fn register(
        &self,
        relay: &Callee<'_>,
        invite: Option<String>,
    ) -> Result<Answer, String> {
        let now = SystemClock.now();
        let recipient = &self.recipient;
        let record = RelayRecord {
            server_name: recipient.server_name.clone(),
            relays: vec![RecordedRelay {
                server_name: relay.peer.name.clone(),
                url: None,
                priority: 0,
            }],
            version: now,
        };
        let record =
            String::from_utf8(record.signed(&recipient.key)).map_err(|error| error.to_string())?;
        let sender = self.sender.server_name.as_str().parse();
        let request = RegistrationRequest {
            record: RawValue::from_string(record).map_err(|error| error.to_string())?,
            senders: Senders {
                allow: vec![sender.map_err(|error| format!("{error}"))?],
                block: Vec::new(),
            },
            time_to_live_ms: Some(TIME_TO_LIVE_MS),
            invite,
            keys: None,
            outgoing: false,
            signed_at: now,
        };
        let body = request.to_canonical_json();
        relay.signed(recipient, Method::PUT, &target(MAILBOX), body).await
    }

    /// A parcel with `padding` bytes in it.
    pub(super) fn parcel(&self, padding: usize) -> Result<Parcel, String> {
        let content = json!({
            "origin": self.sender.server_name,
            "origin_server_ts": SystemClock.now(),
            "pdus": [],
            "edus": [{ "edu_type": "org.restante.doctor", "content": { "padding": "x".repeat(padding) } }],
        });
        let content =
            Content::parse(content.to_string().into()).map_err(|error| error.to_string())?;
        let txn_id = format!("doctor{}", rand::rng().random::<u64>());
        Ok(Parcel { txn_id, content })
    }

    /// Leaves a parcel at the relay, with the proof that it is the sender's.
    pub(super) async fn deposit(
        &self,
        relay: &Callee<'_>,
        parcel: &Parcel,
    ) -> Result<Answer, String> {
        let Self { sender, recipient } = self;
        let uri = format!("{SEND}{}", parcel.txn_id);
        let send = SignableRequest {
            method: Method::PUT.as_str(),
            target: &target(&uri),
            origin: &sender.server_name,
            destination: Some(&recipient.server_name),
            content: Some(parcel.content.canonical()),
        };
        let proof = Proof { authorization: send.sign(&sender.key).to_string(), uri };
        let members = json!({ PROOF_MEMBER: proof }).to_string();
        let extras = Extras::parse(members.into()).map_err(|error| error.to_string())?;
        let body = parcel.content.to_deposit_body(&extras).map_err(|error| error.to_string())?;
        let body = canonicalise(&body).map_err(|error| error.to_string())?.into_owned();
        let target = send_relay_target(&parcel.txn_id, &recipient.server_name);
        relay.signed(sender, Method::PUT, &target, body).await
    }

    /// Asks for the oldest envelope as Dendrite does: a GET with a body. `path` ends the target.
    pub(super) async fn get_with_body(
        &self,
        relay: &Callee<'_>,
        path: &str,
    ) -> Result<Answer, String> {
        let body = br#"{"entry_id":0}"#.to_vec();
        let target = target(&format!("{RELAY_TXN}{path}"));
        relay.signed(&self.recipient, Method::GET, &target, body).await
    }

    /// Collects what comes after `after`, acknowledging first.
    pub(super) async fn collect(
        &self,
        relay: &Callee<'_>,
        after: u64,
        acknowledge: Vec<CollectAcknowledgement>,
        wait_ms: u64,
    ) -> Result<(Answer, Option<CollectResponse>), String> {
        let request = CollectRequest {
            after,
            acknowledge,
            have: Vec::new(),
            limit: 10,
            max_bytes: COLLECT_BYTES_MAX,
            wait_ms,
            heard_until: None,
            signed_at: SystemClock.now(),
        };
        let body = request.to_canonical_json();
        let answer = relay.signed(&self.recipient, Method::POST, &target(COLLECT), body).await?;
        let collected = (answer.status == StatusCode::OK)
            .then(|| CollectResponse::parse(&answer.body).ok())
            .flatten();
        Ok((answer, collected))
    }

    /// Takes the recipient's mailbox away, with what is in it.
    pub(super) async fn leave(&self, relay: &Callee<'_>) -> Result<Answer, String> {
        let request = LeaveRequest { mail: LeftMail::Drop, signed_at: SystemClock.now() };
        let body = request.to_canonical_json();
        relay.signed(&self.recipient, Method::DELETE, &target(MAILBOX), body).await
    }
}

fn identity() -> Identity {
    let id: KeyId = "ed25519:doctor".parse().expect("a constant that is a key id");
    let key = SigningKey::from_seed(id, &rand::rng().random());
    Identity { server_name: ServerName::of_key(&key.public_key()), key: Arc::new(key) }
}

fn target(path: &str) -> RequestTarget {
    path.parse().expect("paths of endpoints and hex digits may be signed")
}
