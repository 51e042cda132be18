//! What a relay gives its word for.

use std::time::Duration;

use bytes::Bytes;
use restante_federation_proto::Clock;
use restante_relay_api::{Content, LeftState, Receipt, ReceiptError, Receipted};

use super::{DAY, ask, left, receipt, sha256};
use crate::harness::{TestRelay, TestServer, collect_all};

#[tokio::test]
async fn a_deposit_is_answered_with_a_receipt_that_the_relays_key_signed() {
    let relay = TestRelay::start_with("[mailbox]\ntime_to_live = \"9d\"").await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let body = a.transaction(&relay, "m");
    let content_sha256 = sha256(&body);
    let of = Receipted {
        origin: a.name(),
        destination: b.name(),
        txn_id: "t",
        content_sha256: &content_sha256,
    };
    let answer = a.leave(&relay, &b, "t", &body).await;
    let first = receipt(&relay, &answer, &of).await.unwrap();
    assert_eq!(first.received_at, relay.clock.now());
    assert_eq!(first.expires_at, relay.clock.now().after(9 * DAY));

    relay.clock.advance(DAY);
    let answer = a.leave(&relay, &b, "t", &body).await;
    let again = receipt(&relay, &answer, &of).await.unwrap();
    assert_eq!(again, first, "of what it has already, since when and until when");

    let other = Receipted { txn_id: "u", ..of };
    let refused = receipt(&relay, &answer, &other).await;
    assert_eq!(refused, Err(ReceiptError::OtherTransaction));
}

#[tokio::test]
async fn mail_that_is_left_again_past_its_time_is_kept_for_another_time() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let mut registration = b.registration(&relay);
    registration.time_to_live_ms = Some(DAY.as_millis() as u64);
    b.register(&relay, &registration).await.assert_ok();
    let body = a.transaction(&relay, "m");
    let content_sha256 = sha256(&body);
    let of = Receipted {
        origin: a.name(),
        destination: b.name(),
        txn_id: "t",
        content_sha256: &content_sha256,
    };
    a.leave(&relay, &b, "t", &body).await.assert_ok();
    relay.clock.advance(DAY + Duration::from_secs(1));
    let asked = [left(&b, "t", &body)];
    assert_eq!(ask(&relay, &a, &asked).await, [LeftState::Unknown]);
    let answer = a.leave(&relay, &b, "t", &body).await;
    let receipt = receipt(&relay, &answer, &of).await.unwrap();
    assert_eq!(receipt.received_at, relay.clock.now());
    assert_eq!(receipt.expires_at, relay.clock.now().after(DAY));
    assert_eq!(ask(&relay, &a, &asked).await, [LeftState::Held]);
    let collected = b.collect(&relay, &collect_all(&relay)).await;
    assert_eq!(collected.envelopes.len(), 1);
    assert_eq!(collected.told.expired.origins.iter().map(|lost| lost.count).sum::<u64>(), 1);
}

#[tokio::test]
async fn a_receipt_names_the_proofs_origin_whoever_brings_the_mail() {
    let relay = TestRelay::start().await;
    let (a, b, carrier) = (TestServer::new(1), TestServer::new(2), TestServer::new(3));
    let content = Content::parse(Bytes::from(a.transaction(&relay, "proven"))).unwrap();
    let extras = a.extras(&relay, b.name(), "t", &content);
    let body = content.to_deposit_body(&extras).unwrap();
    let body = std::str::from_utf8(&body).unwrap();
    let answer = carrier.leave(&relay, &b, "t", body).await;
    let of = Receipted {
        origin: a.name(),
        destination: b.name(),
        txn_id: "t",
        content_sha256: content.sha256(),
    };
    receipt(&relay, &answer, &of).await.unwrap();
}

#[tokio::test]
async fn mail_that_is_turned_away_has_no_receipt() {
    let relay = TestRelay::start_with("[mailbox]\nenvelopes_max = 1").await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    a.leave(&relay, &b, "1", &a.transaction(&relay, "m")).await.assert_ok();
    let full = a.leave(&relay, &b, "2", &a.transaction(&relay, "m")).await;
    full.assert_refused(429, "M_LIMIT_EXCEEDED");
    assert_eq!(Receipt::in_answer(&full.body), None);
}
