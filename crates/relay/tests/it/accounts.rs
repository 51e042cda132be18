//! What a relay answers for: receipts, what became of mail, and mail that its owner has from elsewhere.

mod elsewhere;
mod left;
mod receipts;

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use restante_federation_proto::{Clock, KeyDocument};
use restante_relay_api::endpoints::LEFT;
use restante_relay_api::{
    Content, LeftAnswer, LeftRequest, LeftState, LeftTransaction, MailDigest, Receipt,
    ReceiptError, Receipted, hex,
};

use crate::harness::{Answer, TestRelay, TestServer};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn sha256(body: &str) -> [u8; 32] {
    *Content::parse(Bytes::from(body.to_owned())).unwrap().sha256()
}

/// The receipt in `answer`, checked with the key that the relay publishes.
async fn receipt(
    relay: &TestRelay,
    answer: &Answer,
    of: &Receipted<'_>,
) -> Result<Receipt, ReceiptError> {
    answer.assert_ok();
    let signed = Receipt::in_answer(&answer.body).expect("the answer holds a receipt");
    let key_id = Receipt::key_ids(&signed, relay.name()).remove(0);
    let document = relay.plain(Method::GET, "/_matrix/key/v2/server", "").await.body;
    let document = KeyDocument::parse(document).unwrap();
    let key = &document.verify_keys()[&key_id];
    Receipt::verify(&signed, relay.name(), of, (&key_id, key))
}

fn left(destination: &TestServer, txn_id: &str, body: &str) -> LeftTransaction {
    LeftTransaction {
        destination: destination.name().clone(),
        txn_id: txn_id.to_owned(),
        content_sha256: hex(&sha256(body)),
    }
}

async fn ask_raw(relay: &TestRelay, origin: &TestServer, request: &LeftRequest) -> Answer {
    let body = String::from_utf8(request.to_canonical_json()).unwrap();
    origin.call(relay, Method::POST, LEFT, &body).await
}

async fn ask(relay: &TestRelay, origin: &TestServer, ask: &[LeftTransaction]) -> Vec<LeftState> {
    let (ask, signed_at) = (ask.to_vec(), relay.clock.now());
    let request = LeftRequest { ask, withdraw: Vec::new(), signed_at };
    let answer = ask_raw(relay, origin, &request).await;
    answer.assert_ok();
    serde_json::from_slice::<LeftAnswer>(&answer.body).unwrap().states
}

fn elsewhere(owner: &TestServer, origin: &TestServer, txn_id: &str, body: &str) -> MailDigest {
    MailDigest::of(owner.name(), origin.name(), txn_id, &sha256(body))
}
