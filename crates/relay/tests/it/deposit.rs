//! Leaving mail.

use restante_federation_proto::Clock;
use serde_json::json;

use crate::harness::{TestRelay, TestServer, acknowledge_all, collect_all, texts};

#[tokio::test]
async fn mail_is_handed_over_in_the_order_of_its_deposit() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    for n in 0..5 {
        let body = a.transaction(&relay, &format!("m{n}"));
        a.leave(&relay, &b, &format!("t{n}"), &body).await.assert_ok();
    }
    let collected = b.collect(&relay, &collect_all(&relay)).await;
    assert_eq!(texts(&collected), ["m0", "m1", "m2", "m3", "m4"]);
    assert_eq!(collected.queued.count, 5);
}

#[tokio::test]
async fn the_same_deposit_twice_is_one_envelope_also_after_it_was_acknowledged() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let body = a.transaction(&relay, "once");
    a.leave(&relay, &b, "t", &body).await.assert_ok();
    a.leave(&relay, &b, "t", &body).await.assert_ok();
    let mut request = collect_all(&relay);
    let collected = b.collect(&relay, &request).await;
    assert_eq!(texts(&collected), ["once"]);
    request.acknowledge = acknowledge_all(&collected);
    assert_eq!(b.collect(&relay, &request).await.queued.count, 0);
    a.leave(&relay, &b, "t", &body).await.assert_ok();
    assert!(b.collect(&relay, &collect_all(&relay)).await.envelopes.is_empty());
}

#[tokio::test]
async fn the_same_transaction_id_with_a_grown_body_is_a_second_envelope() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    a.leave(&relay, &b, "t", &a.transaction(&relay, "short")).await.assert_ok();
    a.leave(&relay, &b, "t", &a.transaction(&relay, "grown")).await.assert_ok();
    assert_eq!(texts(&b.collect(&relay, &collect_all(&relay)).await), ["short", "grown"]);
}

#[tokio::test]
async fn content_is_kept_whole() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let now = relay.clock.now().as_millis();
    let body = format!(
        r#"{{"edus":[{{"content":{{"big":123456789012345678901,"n":1.50}},"edu_type":"x","extra":true}}],"origin":"{}","origin_server_ts":{now}.5,"pdus":null,"unknown":{{"kept":1e3}}}}"#,
        a.name()
    );
    a.leave(&relay, &b, "t", &body).await.assert_ok();
    let collected = b.collect(&relay, &collect_all(&relay)).await;
    assert_eq!(std::str::from_utf8(&collected.envelopes[0].content).unwrap(), body);
}

#[tokio::test]
async fn a_missing_origin_is_filled_with_the_caller() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    a.leave(&relay, &b, "t", r#"{"pdus":[],"edus":null}"#).await.assert_ok();
    let collected = b.collect(&relay, &collect_all(&relay)).await;
    let content: serde_json::Value =
        serde_json::from_slice(&collected.envelopes[0].content).unwrap();
    assert_eq!(content["origin"], json!(a.name()));
    assert_eq!(collected.envelopes[0].origin, *a.name());
}

#[tokio::test]
async fn another_servers_name_as_origin_needs_its_proof() {
    let relay = TestRelay::start().await;
    let (a, b, c) = (TestServer::new(1), TestServer::new(2), TestServer::new(3));
    let body = a.transaction(&relay, "forged");
    c.leave(&relay, &b, "t", &body).await.assert_refused(400, "M_BAD_JSON");
    assert!(b.collect(&relay, &collect_all(&relay)).await.envelopes.is_empty());
}

#[tokio::test]
async fn mail_past_its_time_or_from_the_future_is_refused() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let now = relay.clock.now().as_millis();
    for sent_at in [now - 31 * 24 * 3600 * 1000, now + 11 * 60 * 1000] {
        let body = json!({ "origin": a.name(), "origin_server_ts": sent_at, "pdus": [] });
        a.leave(&relay, &b, "t", &body.to_string()).await.assert_refused(400, "M_INVALID_PARAM");
    }
}

#[tokio::test]
async fn a_full_mailbox_refuses_and_loses_nothing() {
    let relay = TestRelay::start_with("[mailbox]\nenvelopes_max = 2").await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    for n in 0..2 {
        a.leave(&relay, &b, &format!("t{n}"), &a.transaction(&relay, &format!("m{n}")))
            .await
            .assert_ok();
    }
    let refused = a.leave(&relay, &b, "t2", &a.transaction(&relay, "m2")).await;
    refused.assert_refused(429, "M_LIMIT_EXCEEDED");
    assert!(refused.json()["retry_after_ms"].as_u64().unwrap() > 0);
    assert_eq!(texts(&b.collect(&relay, &collect_all(&relay)).await), ["m0", "m1"]);
}
