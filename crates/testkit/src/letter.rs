//! Mail that a test leaves at a relay by hand, signed with the key of the server in whose name it is.

use http::{Method, StatusCode};
use restante_federation_proto::{
    Clock as _, ServerName, SignableRequest, SigningKey, SystemClock, canonicalise,
};
use restante_relay_api::endpoints::{PROOF_MEMBER, SEND, send_relay_target};
use restante_relay_api::{Content, Extras, Proof};
use serde_json::{Value, json};

use crate::http_probe::exchange;
use crate::relay::RelayProcess;
use crate::signing::signed_request;
use crate::site::Site;

/// A transaction that no homeserver made.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Whom it is for.
    pub recipient: ServerName,
    /// The transaction's id.
    pub txn_id: String,
    /// Its events.
    pub pdus: Vec<Value>,
    /// Its EDUs.
    pub edus: Vec<Value>,
}

impl Letter {
    /// The transaction of `origin` that was made now.
    pub(crate) fn content(&self, origin: &ServerName) -> Content {
        let content = json!({
            "origin": origin,
            "origin_server_ts": SystemClock.now(),
            "pdus": self.pdus,
            "edus": self.edus,
        });
        Content::parse(content.to_string().into()).expect("it is a transaction")
    }

    /// The signature under which `origin`'s homeserver would have sent `content`.
    pub(crate) fn proof(
        &self,
        content: &Content,
        (origin, key): (&ServerName, &SigningKey),
    ) -> Proof {
        let uri = format!("{SEND}{}", self.txn_id);
        let send = SignableRequest {
            method: Method::PUT.as_str(),
            target: &uri.parse().expect("the endpoint's path is a target"),
            origin,
            destination: Some(&self.recipient),
            content: Some(content.canonical()),
        };
        Proof { authorization: send.sign(key).to_string(), uri }
    }

    /// Leaves `content` at `relay` in `origin`'s name.
    pub(crate) async fn leave(
        &self,
        relay: &RelayProcess,
        content: &Content,
        extras: &Extras,
        origin: (&ServerName, &SigningKey),
    ) -> (StatusCode, String) {
        let body = content.to_deposit_body(extras).expect("its members are JSON");
        let body = canonicalise(&body).expect("a deposit is JSON").into_owned();
        let request = signed_request(
            Method::PUT,
            &relay.direct_url(),
            &send_relay_target(&self.txn_id, &self.recipient),
            origin,
            relay.server_name(),
            body.into(),
        );
        let (status, body) = exchange(request).await.expect("the relay answers");
        (status, String::from_utf8_lossy(&body).into_owned())
    }
}

impl Site {
    /// Leaves `letter` in this site's name, with the proof as its node leaves it.
    ///
    /// # Panics
    ///
    /// When the relay refuses.
    pub async fn leave_by_hand(&self, relay: &RelayProcess, letter: &Letter) {
        let origin = (self.homeserver.server_name(), self.homeserver.signing_key());
        let content = letter.content(origin.0);
        let members = json!({ PROOF_MEMBER: letter.proof(&content, origin) });
        let extras = Extras::parse(members.to_string().into()).expect("they are well-formed");
        assert_taken(letter.leave(relay, &content, &extras, origin).await);
    }

    /// Leaves `letter` in this site's name, as a Dendrite node leaves it: without a proof or anything else of ours.
    ///
    /// # Panics
    ///
    /// When the relay refuses.
    pub async fn leave_without_proof(&self, relay: &RelayProcess, letter: &Letter) {
        let origin = (self.homeserver.server_name(), self.homeserver.signing_key());
        let content = letter.content(origin.0);
        assert_taken(letter.leave(relay, &content, &Extras::default(), origin).await);
    }
}

fn assert_taken((status, answer): (StatusCode, String)) {
    assert!(status.is_success(), "the relay refuses a letter: {status} {answer}");
}
