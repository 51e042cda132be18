//! What an origin hears of the mail that it left.

use std::time::Duration;

use http::Method;
use restante_federation_proto::Clock;
use restante_relay_api::limits::LEFT_MAX;
use restante_relay_api::{LeftRequest, LeftState, LeftTransaction};

use super::{DAY, ask, ask_raw, elsewhere, left};
use crate::harness::{TestRelay, TestServer, acknowledge_all, collect_all};

#[tokio::test]
async fn an_origin_hears_what_became_of_its_mail() {
    use LeftState::{Gone, Held, Unknown};
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let mail = a.transaction(&relay, "m");
    a.leave(&relay, &b, "1", &mail).await.assert_ok();
    let mut request = collect_all(&relay);
    request.acknowledge = acknowledge_all(&b.collect(&relay, &request).await);
    b.collect(&relay, &request).await;
    a.leave(&relay, &b, "2", &mail).await.assert_ok();
    let asked = [left(&b, "2", &mail), left(&b, "1", &mail), left(&b, "3", &mail)];
    assert_eq!(ask(&relay, &a, &asked).await, [Held, Gone, Unknown]);
    let grown = left(&b, "2", &a.transaction(&relay, "grown"));
    assert_eq!(ask(&relay, &a, &[grown]).await, [Unknown]);

    relay.clock.advance(31 * DAY);
    assert_eq!(ask(&relay, &a, &asked[..1]).await, [Unknown], "it is past its time");
}

#[tokio::test]
async fn mail_in_a_mailbox_that_the_operator_holds_is_held() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let mail = a.transaction(&relay, "m");
    a.leave(&relay, &b, "1", &mail).await.assert_ok();
    let hold = format!("/mailboxes/{}/hold", b.name());
    let held = relay.operator(Method::POST, &hold, "").await;
    assert!(held.status.is_success(), "{held:?}");
    assert_eq!(ask(&relay, &a, &[left(&b, "1", &mail)]).await, [LeftState::Held]);
}

#[tokio::test]
async fn nobody_hears_of_the_mail_of_others_be_the_relay_open_or_not() {
    let relay = TestRelay::start().await;
    let (a, b, stranger) = (TestServer::new(1), TestServer::new(2), TestServer::new(3));
    let mail = a.transaction(&relay, "m");
    a.leave(&relay, &b, "1", &mail).await.assert_ok();
    for asks in [&stranger, &b] {
        let states = ask(&relay, asks, &[left(&b, "1", &mail), left(&stranger, "1", &mail)]).await;
        assert_eq!(states, [LeftState::Unknown; 2]);
    }
    let closed = TestRelay::start().await;
    let mut registration = b.registration(&closed);
    let block = serde_json::json!({ "block": [a.name()] });
    registration.senders = serde_json::from_value(block).unwrap();
    b.register(&closed, &registration).await.assert_ok();
    let mut request = collect_all(&closed);
    request.have = vec![elsewhere(&b, &a, "1", &mail)];
    b.collect(&closed, &request).await;
    let refused = a.leave(&closed, &b, "1", &mail).await;
    assert!(!refused.status.is_success(), "{refused:?}");
    let states = ask(&closed, &a, &[left(&b, "1", &mail)]).await;
    assert_eq!(states, [LeftState::Unknown], "whom it refuses hears not that b is served here");
}

#[tokio::test]
async fn a_question_is_bounded_in_number_and_in_time() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let one = left(&b, "1", "{}");
    let signed_at = relay.clock.now();
    let full = LeftRequest { ask: vec![one.clone(); LEFT_MAX], withdraw: Vec::new(), signed_at };
    ask_raw(&relay, &a, &full).await.assert_ok();
    let too_many = LeftRequest { withdraw: vec![one.clone()], ..full };
    ask_raw(&relay, &a, &too_many).await.assert_refused(400, "M_INVALID_PARAM");
    let malformed = LeftTransaction { content_sha256: "AB".to_owned(), ..one.clone() };
    let malformed = LeftRequest { ask: vec![malformed], withdraw: Vec::new(), signed_at };
    ask_raw(&relay, &a, &malformed).await.assert_refused(400, "M_INVALID_PARAM");
    let signed_at = signed_at.before(Duration::from_secs(61));
    let old = LeftRequest { ask: vec![one], withdraw: Vec::new(), signed_at };
    let refused = ask_raw(&relay, &a, &old).await;
    refused.assert_refused(403, "M_FORBIDDEN");
    assert_eq!(refused.json()["now"], relay.clock.now().as_millis());
}
