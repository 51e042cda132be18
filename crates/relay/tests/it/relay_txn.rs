//! Collecting one at a time, as Dendrite does.

use http::Method;
use restante_relay_api::endpoints::mailbox_user_id;
use serde_json::{Value, json};

use crate::harness::{TestRelay, TestServer};

#[tokio::test]
async fn dendrites_loop_empties_the_mailbox_in_order() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    for n in 0..3 {
        let body = a.transaction(&relay, &format!("m{n}"));
        a.leave(&relay, &b, &format!("t{n}"), &body).await.assert_ok();
    }
    let (mut entry_id, mut seen) = (0, Vec::new());
    loop {
        let answer = b.relay_txn(&relay, entry_id).await;
        if answer["entries_queued"] == json!(false) {
            let empty = json!({ "transaction": { "origin": "", "origin_server_ts": 0, "pdus": null }, "entries_queued": false });
            assert_eq!(answer, empty);
            break;
        }
        entry_id = answer["entry_id"].as_u64().unwrap();
        let text = answer["transaction"]["pdus"][0]["content"]["body"].clone();
        seen.push(text);
    }
    assert_eq!(seen, ["m0", "m1", "m2"]);
}

#[tokio::test]
async fn asking_again_without_acknowledging_gives_the_same_entry() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    a.leave(&relay, &b, "t", &a.transaction(&relay, "m")).await.assert_ok();
    let first = b.relay_txn(&relay, 0).await;
    assert_eq!(b.relay_txn(&relay, 0).await, first);
}

#[tokio::test]
async fn a_non_owner_is_refused_alike_whether_or_not_there_is_a_mailbox() {
    let relay = TestRelay::start().await;
    let (a, b, stranger) = (TestServer::new(1), TestServer::new(2), TestServer::new(3));
    a.leave(&relay, &b, "t", &a.transaction(&relay, "m")).await.assert_ok();
    let entry_id = b.relay_txn(&relay, 0).await["entry_id"].clone();
    let body = json!({ "entry_id": entry_id }).to_string();
    let mut answers = Vec::new();
    for whose in [&b, &TestServer::new(4)] {
        let target = format!("/_matrix/federation/v1/relay_txn/{}", mailbox_user_id(whose.name()));
        let answer = stranger.call(&relay, Method::GET, &target, &body).await;
        answer.assert_refused(403, "M_FORBIDDEN");
        answers.push(answer.body);
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(b.relay_txn(&relay, 0).await["entry_id"], entry_id, "nothing was acknowledged");
}

#[tokio::test]
async fn an_acknowledgement_in_one_mailbox_changes_nothing_in_another() {
    let relay = TestRelay::start().await;
    let (a, b, c) = (TestServer::new(1), TestServer::new(2), TestServer::new(3));
    a.leave(&relay, &b, "t", &a.transaction(&relay, "for b")).await.assert_ok();
    a.leave(&relay, &c, "t", &a.transaction(&relay, "for c")).await.assert_ok();
    let of_b = b.relay_txn(&relay, 0).await["entry_id"].as_u64().unwrap();
    c.relay_txn(&relay, of_b).await;
    assert_eq!(b.relay_txn(&relay, 0).await["entry_id"], json!(of_b));
    assert_eq!(c.relay_txn(&relay, 0).await["transaction"]["pdus"][0]["content"]["body"], "for c");
}

#[tokio::test]
async fn entry_ids_that_are_none_are_refused_without_effect() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    a.leave(&relay, &b, "t", &a.transaction(&relay, "m")).await.assert_ok();
    let target = format!("/_matrix/federation/v1/relay_txn/{}", mailbox_user_id(b.name()));
    for body in [r#"{"entry_id":-1}"#, r#"{"entry_id":"1"}"#, r#"{"entry_id":1.5}"#, "[]", "7"] {
        b.call(&relay, Method::GET, &target, body).await.assert_refused(400, "M_BAD_JSON");
    }
    b.call(&relay, Method::GET, &target, "").await.assert_refused(400, "M_NOT_JSON");
    assert_eq!(b.relay_txn(&relay, 0).await["entries_queued"], Value::Bool(true));
}
