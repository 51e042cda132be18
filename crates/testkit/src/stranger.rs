//! A stranger who poses as another server: a key of its own, a key document in the other's name, and mail.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use restante_federation_proto::{Clock as _, ServerName, SigningKey, SystemClock, mint};
use restante_relay_api::{Content, Extras, Waybill, hex};
use serde_json::Value;

use crate::http_server::{HttpServer, json};
use crate::letter::Letter;
use crate::relay::RelayProcess;
use crate::signing::random_key;

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
        let letter = Letter {
            recipient: recipient.clone(),
            txn_id: "stranger1".to_owned(),
            pdus: Vec::new(),
            edus: vec![edu],
        };
        let content = letter.content(&self.victim);
        let extras = self.extras(&letter, &content);
        letter.leave(relay, &content, &extras, (&self.victim, &self.key)).await
    }

    fn extras(&self, letter: &Letter, content: &Content) -> Extras {
        let proof = letter.proof(content, (&self.victim, &self.key));
        let waybill = Waybill {
            origin: self.victim.clone(),
            destination: letter.recipient.clone(),
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
