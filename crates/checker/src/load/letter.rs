//! Mail for the load: made once, left by anybody, as often as they like.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;
use restante_federation::Identity;
use restante_federation_proto::{RequestTarget, ServerName, SignableRequest, Timestamp, mint};
use restante_relay_api::endpoints::{SEND, send_relay_target};
use restante_relay_api::{Content, DepositBody, Extras, Proof, Waybill, hex};
use serde_json::json;

use super::caller::canonical;
use crate::history::{Deposit, Digest, Key};

/// Letters that may be left once more. Older ones are forgotten, so that a long load does not grow.
const SHELF_LETTERS_MAX: usize = 64;

/// How long the key documents in the load are valid.
const KEYS_VALID: Duration = Duration::from_secs(7 * 24 * 3600);

/// A deposit that is ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub(super) target: RequestTarget,
    pub(super) body: Bytes,
    pub(super) deposit: Deposit,
    /// Whether others can bring it: it carries its origin's proof.
    pub(super) is_proven: bool,
}

/// How a letter says where it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As a node leaves it: proof, waybill and keys.
    Proven,
    /// As Dendrite leaves it: by whoever brings it.
    Plain,
    /// As an old Dendrite leaves it: without the member `origin`.
    Anonymous,
}

/// What a letter is to be.
pub(super) struct Draft<'a> {
    pub(super) from: &'a Identity,
    pub(super) to: &'a ServerName,
    pub(super) txn_id: &'a str,
    pub(super) text: &'a str,
    pub(super) form: Form,
    pub(super) now: Timestamp,
}

impl Letter {
    pub(super) fn write(draft: &Draft<'_>) -> Self {
        let Draft { from, to, txn_id, text, form, now } = *draft;
        let mut transaction = json!({
            "origin": from.server_name, "origin_server_ts": now.as_millis(),
            "pdus": [{ "type": "m.room.message", "content": { "body": text } }], "edus": []
        });
        if form == Form::Anonymous
            && let Some(transaction) = transaction.as_object_mut()
        {
            transaction.remove("origin");
        }
        let content = Content::parse(canonical(&transaction)).expect("it is a transaction");
        let body = match form {
            Form::Proven => {
                let extras = extras(draft, &content);
                content.to_deposit_body(&extras).expect("the members are small")
            }
            Form::Plain | Form::Anonymous => content.raw().clone(),
        };
        // The signature is over the canonical form, which is what has to be sent.
        let body: Bytes =
            restante_federation_proto::canonicalise(&body).expect("it is JSON").into_owned().into();
        let stored = DepositBody::parse(body.clone()).expect("it is a deposit");
        // A relay adds the origin that is missing.
        let content = stored.content.with_origin(&from.server_name).expect("it is an object");
        let key = Key {
            origin: from.server_name.clone(),
            txn_id: txn_id.to_owned(),
            sha256: Digest(*content.sha256()),
        };
        let bytes = (content.raw().len() + stored.extras.json.len()) as u64;
        let members = Digest::of(&stored.extras.json);
        Self {
            target: send_relay_target(txn_id, to),
            body,
            deposit: Deposit { mailbox: to.clone(), key, bytes, members },
            is_proven: form == Form::Proven,
        }
    }
}

/// The members that a node adds.
fn extras(draft: &Draft<'_>, content: &Content) -> Extras {
    let Draft { from, to, now, .. } = draft;
    let waybill = Waybill {
        origin: from.server_name.clone(),
        destination: (*to).clone(),
        stream: "load".to_owned(),
        seq: 1,
        content_sha256: hex(content.sha256()),
        capsule_sha256: None,
        deposited_at: *now,
    };
    let keys = mint(&from.server_name, &from.key, None, now.after(KEYS_VALID));
    let proof = proof(draft, content);
    Extras::new(&proof, &waybill.signed(&from.key), keys.raw()).expect("the members are small")
}

/// The proof of the transaction.
pub(super) fn proof(draft: &Draft<'_>, content: &Content) -> Proof {
    let uri = format!("{SEND}{}", draft.txn_id);
    let signable = SignableRequest {
        method: "PUT",
        target: &uri.parse().expect("the load's transaction ids are digits and letters"),
        origin: &draft.from.server_name,
        destination: Some(draft.to),
        content: Some(content.canonical()),
    };
    let authorization = signable.sign(&draft.from.key).to_string();
    Proof { uri, authorization }
}

/// Letters that were left, answered or not, and may be left again by anybody.
#[derive(Debug, Default)]
pub(super) struct Shelf(Mutex<VecDeque<(Identity, Arc<Letter>)>>);

impl Shelf {
    pub(super) fn put(&self, from: &Identity, letter: Arc<Letter>) {
        let mut letters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if letters.len() == SHELF_LETTERS_MAX {
            letters.pop_front();
        }
        letters.push_back((from.clone(), letter));
    }

    /// All of them, each with whoever wrote it.
    pub(super) fn all(&self) -> Vec<(Identity, Arc<Letter>)> {
        let letters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        letters.iter().cloned().collect()
    }

    /// Any of them, with whoever wrote it.
    pub(super) fn any(&self, rng: &mut StdRng) -> Option<(Identity, Arc<Letter>)> {
        let letters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if letters.is_empty() {
            return None;
        }
        letters.get(rng.random_range(0..letters.len())).cloned()
    }
}
