//! Calls that a relay must refuse, and that must have no effect.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use restante_federation::{Body, Identity, Peer, full, signed_request};
use restante_federation_proto::{ServerName, Timestamp};
use restante_relay_api::endpoints::{COLLECT, PROOF_MEMBER};
use restante_relay_api::{Content, Proof};
use serde_json::{Value, json};

use super::caller::{Caller, canonical};
use super::letter::{Draft, Form, Letter, proof};

/// How many kinds there are.
pub(super) const KINDS: usize = 7;

/// Beyond what a relay keeps.
const TOO_OLD: Duration = Duration::from_secs(40 * 24 * 3600);

/// Sends the malformed call number `kind`.
pub(super) async fn send(
    caller: &Caller,
    relay: &Peer,
    from: &Identity,
    mailbox: &ServerName,
    kind: usize,
) {
    let now = caller.clock.now();
    let text = format!("malformed {kind} {}", now.as_millis());
    let draft =
        Draft { from, to: mailbox, txn_id: "malformed", text: &text, form: Form::Plain, now };
    let letter = Letter::write(&draft);
    let put =
        |body: Bytes| signed_request(from, Method::PUT, &letter.target, &relay.name, Some(body));
    let (what, request) = match kind {
        0 => ("a deposit without a signature", unsigned(put(letter.body.clone()))),
        1 => {
            let request = put(letter.body.clone()).map(|_| full(altered(&letter.body)));
            ("a deposit whose body is not what was signed", request)
        }
        2 => ("a deposit that is not JSON", put(Bytes::from_static(b"{\"pdus\":"))),
        3 => {
            let old = Letter::write(&Draft { now: now.before(TOO_OLD), ..draft });
            ("a deposit older than mail is kept", put(old.body))
        }
        4 => {
            let other = proof(&draft, &other_content());
            ("a deposit with a proof of other content", put(with_proof(&draft, &other)))
        }
        5 => {
            let body = canonical(&json!({ "origin": mailbox, "pdus": [], "edus": [] }));
            ("a deposit in another server's name", put(body))
        }
        _ => ("a collect signed long ago", late_collect(relay, from, now.before(TOO_OLD))),
    };
    caller.malformed(relay, &from.server_name, what, request).await;
}

fn late_collect(relay: &Peer, from: &Identity, signed_at: Timestamp) -> Request<Body> {
    let target = COLLECT.parse().expect("it is a target");
    let body = canonical(&json!({ "after": 0, "signed_at": signed_at.as_millis() }));
    signed_request(from, Method::POST, &target, &relay.name, Some(body))
}

fn unsigned(mut request: Request<Body>) -> Request<Body> {
    request.headers_mut().remove(header::AUTHORIZATION);
    request
}

/// The same with one letter of its text changed.
fn altered(body: &Bytes) -> Bytes {
    let text = String::from_utf8_lossy(body).replace("malformed", "Malformed");
    text.into_bytes().into()
}

fn other_content() -> Content {
    Content::parse(Bytes::from_static(b"{\"pdus\":[]}")).expect("it is a transaction")
}

fn with_proof(draft: &Draft<'_>, proof: &Proof) -> Bytes {
    let proof: Value = json!({ "uri": proof.uri, "authorization": proof.authorization });
    canonical(&json!({
        "origin": draft.from.server_name, "origin_server_ts": draft.now.as_millis(),
        "pdus": [{ "type": "m.room.message", "content": { "body": draft.text } }], "edus": [],
        PROOF_MEMBER: proof
    }))
}
