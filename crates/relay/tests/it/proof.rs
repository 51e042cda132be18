//! Mail with the origin's own proof, whoever brings it.

use bytes::Bytes;
use restante_relay_api::{Content, DepositBody};
use serde_json::{Value, json};

use crate::harness::{TestRelay, TestServer, collect_all};

struct Mail {
    content: Content,
    body: String,
}

fn proven(relay: &TestRelay, a: &TestServer, b: &TestServer, txn_id: &str) -> Mail {
    let content = Content::parse(Bytes::from(a.transaction(relay, "proven"))).unwrap();
    let extras = a.extras(relay, b.name(), txn_id, &content);
    let body = content.to_deposit_body(&extras).unwrap();
    Mail { content, body: String::from_utf8(body.to_vec()).unwrap() }
}

#[tokio::test]
async fn a_third_party_may_bring_proven_mail_and_it_comes_back_with_all_members() {
    let relay = TestRelay::start().await;
    let (a, b, carrier) = (TestServer::new(1), TestServer::new(2), TestServer::new(3));
    let mail = proven(&relay, &a, &b, "t1");
    carrier.leave(&relay, &b, "t1", &mail.body).await.assert_ok();
    let collected = b.collect(&relay, &collect_all(&relay)).await;
    let envelope = &collected.envelopes[0];
    assert_eq!((&envelope.origin, envelope.txn_id.as_str()), (a.name(), "t1"));
    assert_eq!(envelope.content, mail.content.canonical());
    let again = DepositBody::parse(Bytes::from(mail.body)).unwrap();
    let kept: Value = serde_json::from_slice(&envelope.extras).unwrap();
    assert_eq!(kept, serde_json::from_slice::<Value>(&again.extras.json).unwrap());
    let one = b.relay_txn(&relay, 0).await;
    assert_eq!(one["org.restante.proof"], kept["org.restante.proof"]);
    assert_eq!(one["org.restante.waybill"]["seq"], 1);
}

#[tokio::test]
async fn a_proof_that_does_not_fit_is_refused() {
    let relay = TestRelay::start().await;
    let (a, b, c) = (TestServer::new(1), TestServer::new(2), TestServer::new(3));
    let mail = proven(&relay, &a, &b, "t1");
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut body: Value = serde_json::from_str(&mail.body).unwrap();
        change(&mut body);
        body.to_string()
    };
    let uri = |uri: &str| changed(&|body| body["org.restante.proof"]["uri"] = json!(uri));
    let cases = [
        ("another transaction id", a.leave(&relay, &b, "t2", &mail.body).await),
        ("another mailbox", a.leave(&relay, &c, "t1", &mail.body).await),
        (
            "changed content",
            a.leave(&relay, &b, "t1", &changed(&|body| body["edus"] = json!([1]))).await,
        ),
        ("a query", a.leave(&relay, &b, "t1", &uri("/_matrix/federation/v1/send/t1?x=1")).await),
        (
            "another endpoint",
            a.leave(&relay, &b, "t1", &uri("/_matrix/federation/v2/send/t1")).await,
        ),
        (
            "a longer path",
            a.leave(&relay, &b, "t1", &uri("/_matrix/federation/v1/send/t1/x")).await,
        ),
        (
            "an encoded id",
            a.leave(&relay, &b, "t1", &uri("/_matrix/federation/v1/send/%741")).await,
        ),
        (
            "no object",
            a.leave(&relay, &b, "t1", &changed(&|body| body["org.restante.proof"] = json!("x")))
                .await,
        ),
        (
            "another origin in the content",
            a.leave(&relay, &b, "t1", &changed(&|body| body["origin"] = json!(c.name()))).await,
        ),
    ];
    for (case, answer) in cases {
        assert_eq!(answer.status.as_u16(), 400, "{case}: {answer:?}");
        assert_eq!(answer.json()["errcode"], "M_BAD_JSON", "{case}: {answer:?}");
    }
    assert!(b.collect(&relay, &collect_all(&relay)).await.envelopes.is_empty());
}

#[tokio::test]
async fn a_proof_whose_key_cannot_be_had_is_answered_503() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let mut unknown = TestServer::new(5);
    unknown.identity.server_name = "unknown.example".parse().unwrap();
    let mail = proven(&relay, &unknown, &b, "t1");
    let refused = a.leave(&relay, &b, "t1", &mail.body).await;
    refused.assert_refused(503, "M_UNKNOWN");
    assert!(refused.json()["retry_after_ms"].as_u64().unwrap() > 0);
    assert!(b.collect(&relay, &collect_all(&relay)).await.envelopes.is_empty());
}
