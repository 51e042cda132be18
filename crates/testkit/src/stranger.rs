//! A stranger who poses as another server: a key of its own, a key document in the other's name, and mail.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use restante_federation_proto::{
    Clock as _, ServerName, SignableRequest, SigningKey, SystemClock, canonicalise, mint,
};
use restante_relay_api::endpoints::{SEND, send_relay_target};
use restante_relay_api::{Content, Extras, Proof, Waybill, hex};
use serde_json::Value;

use crate::http_probe::exchange;
use crate::http_server::{HttpServer, json};
use crate::relay::RelayProcess;
use crate::signing::{random_key, signed_request};

/// How long the stranger's key document claims to be valid.
const VALIDITY: Duration = Duration::from_secs(30 * 24 * 3600);

/// Someone who claims to be `victim`, and serves a key document that says so.
#[derive(Debug)]
pub struct Stranger {
    victim: ServerName,
    key: SigningKey,
    document: Bytes,
    server: HttpServer,
}

impl Stranger {
    /// Mints a key document in `victim`'s name, and serves it.
    pub async fn posing_as(victim: &ServerName) -> Self {
        let key = random_key("stranger");
        let valid_until = SystemClock.now().after(VALIDITY);
        let document = mint(victim, &key, None, valid_until).raw().clone();
        let answer = document.clone();
        let server = HttpServer::start(move |_| {
            let answer = json(StatusCode::OK, answer.clone());
            Box::pin(async { answer })
        })
        .await;
        Self { victim: victim.clone(), key, document, server }
    }

    /// Where it answers as the victim, for those who are misled.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Leaves a transaction with `edu` in the victim's name for `recipient`; every signature in it is the stranger's.
    pub async fn deposit(
        &self,
        relay: &RelayProcess,
        recipient: &ServerName,
        edu: Value,
    ) -> (StatusCode, String) {
        let txn_id = "stranger1";
        let content = serde_json::json!({
            "origin": self.victim,
            "origin_server_ts": SystemClock.now(),
            "pdus": [],
            "edus": [edu],
        });
        let content = Content::parse(content.to_string().into()).expect("it is a transaction");
        let extras = self.extras(&content, recipient, txn_id);
        let body = content.to_deposit_body(&extras).expect("its members are JSON");
        let body = canonicalise(&body).expect("a deposit is JSON").into_owned();
        let request = signed_request(
            Method::PUT,
            &relay.direct_url(),
            &send_relay_target(txn_id, recipient),
            (&self.victim, &self.key),
            relay.server_name(),
            body.into(),
        );
        let (status, body) = exchange(request).await.expect("the relay answers");
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    fn extras(&self, content: &Content, recipient: &ServerName, txn_id: &str) -> Extras {
        let uri = format!("{SEND}{txn_id}");
        let send = SignableRequest {
            method: Method::PUT.as_str(),
            target: &uri.parse().expect("the endpoint's path is a target"),
            origin: &self.victim,
            destination: Some(recipient),
            content: Some(content.canonical()),
        };
        let proof = Proof { authorization: send.sign(&self.key).to_string(), uri };
        let waybill = Waybill {
            origin: self.victim.clone(),
            destination: recipient.clone(),
            stream: "stranger".to_owned(),
            seq: 1,
            content_sha256: hex(content.sha256()),
            capsule_sha256: None,
            deposited_at: SystemClock.now(),
        };
        Extras::new(&proof, &waybill.signed(&self.key), &self.document)
            .expect("they are well-formed")
    }
}
