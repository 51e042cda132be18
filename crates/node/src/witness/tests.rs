//! Searches for events that speak for a key, with a scripted homeserver.

use restante_federation_proto::{Evidence, SigningKey, mint, sign_json};
use serde_json::{Value, json};

use super::*;
use crate::test_site::{BEGINNING, OWN_NAME, Reply, TestSite, identity, name};

const NOT_FOUND: Reply = Reply::Json(404, "{}");
const FORBIDDEN: Reply = Reply::Json(403, "{}");

fn version() -> Reply {
    Reply::Json(400, r#"{"errcode":"M_INCOMPATIBLE_ROOM_VERSION","room_version":"10"}"#)
}

fn document(key: &SigningKey) -> KeyDocument {
    mint(&name("b.test"), key, None, BEGINNING.after(Duration::from_secs(60)))
}

/// A transaction in b.test's name with a message into `room`.
fn content(room: &str) -> Vec<u8> {
    let pdu = json!({
        "room_id": room, "sender": "@x:b.test", "prev_events": ["$prev+"], "auth_events": ["$join"],
    });
    json!({ "origin": "b.test", "pdus": [pdu] }).to_string().into_bytes()
}

fn event(sender: &str, key: &SigningKey) -> Value {
    let mut event = json!({
        "type": "m.room.message", "room_id": "!r", "sender": sender, "content": {}, "depth": 1,
        "origin_server_ts": 1, "prev_events": [], "auth_events": [], "hashes": { "sha256": "x" },
    });
    let server = name(sender.split_once(':').unwrap().1);
    sign_json(event.as_object_mut().unwrap(), &server, key);
    event
}

fn pdus(events: &[Value]) -> Reply {
    Reply::Page(200, "application/json", json!({ "pdus": events }).to_string().into())
}

async fn site(replies: impl IntoIterator<Item = Reply>) -> TestSite {
    let site = TestSite::new().await;
    site.own_homeserver.script(&name(OWN_NAME), replies);
    site
}

async fn hear(site: &TestSite, document: &KeyDocument, content: &[u8]) -> Testimony {
    site.run(site.witness.hear(site, document, content)).await
}

fn targets(site: &TestSite) -> Vec<String> {
    site.own_homeserver.targets_of(&name(OWN_NAME))
}

#[tokio::test(start_paused = true)]
async fn a_document_is_believed_by_an_event_before_the_mails_own() {
    let key = identity("b.test").key;
    let other = event("@y:c.test", &identity("c.test").key);
    let site = site([version(), pdus(&[other, event("@x:b.test", &key)])]).await;
    assert_eq!(hear(&site, &document(&key), &content("!r")).await, Testimony::Believed);
    let believed = site.keys.believed(&name("b.test")).await.unwrap();
    assert_eq!(believed.evidence, Evidence::Event);
    let asked = &targets(&site)[1];
    assert_eq!(asked, "/_matrix/federation/v1/backfill/%21r?limit=50&v=$prev%2B");
}

#[tokio::test(start_paused = true)]
async fn a_document_is_believed_by_the_join_that_authorizes_the_mails_event() {
    let key = identity("b.test").key;
    let site = site([version(), pdus(&[]), pdus(&[event("@x:b.test", &key)])]).await;
    assert_eq!(hear(&site, &document(&key), &content("!r")).await, Testimony::Believed);
    assert_eq!(targets(&site)[2], "/_matrix/federation/v1/event/$join");
}

#[tokio::test(start_paused = true)]
async fn an_impostors_document_is_not_believed_and_not_looked_into_twice() {
    let event = event("@x:b.test", &identity("b.test").key);
    let site = site([version(), pdus(&[event])]).await;
    let forged = document(&identity("impostor.test").key);
    for _ in 0..2 {
        let Testimony::NotBelieved(reason) = hear(&site, &forged, &content("!r")).await else {
            panic!("the impostor is believed")
        };
        assert!(reason.contains("another key"), "{reason}");
    }
    assert_eq!(targets(&site).len(), 2);
    assert_eq!(site.keys.believed(&name("b.test")).await, None);
    // The true document has its own search.
    let key = identity("b.test").key;
    assert_eq!(hear(&site, &document(&key), &content("!r")).await, Testimony::Believed);
}

#[tokio::test(start_paused = true)]
async fn a_room_that_the_homeserver_is_not_in_says_nothing() {
    let key = identity("b.test").key;
    let site = site([FORBIDDEN]).await;
    for _ in 0..2 {
        let heard = hear(&site, &document(&key), &content("!r")).await;
        assert!(matches!(heard, Testimony::NotBelieved(_)));
    }
    assert_eq!(targets(&site).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_homeserver_that_left_the_room_says_nothing() {
    let key = identity("b.test").key;
    let site = site([version(), FORBIDDEN, NOT_FOUND]).await;
    let heard = hear(&site, &document(&key), &content("!r")).await;
    assert!(matches!(heard, Testimony::NotBelieved(reason) if reason.contains("no event")));
}

#[tokio::test(start_paused = true)]
async fn a_homeserver_that_is_down_is_asked_again_the_next_time() {
    let key = identity("b.test").key;
    let site = site([Reply::Refused, version(), pdus(&[event("@x:b.test", &key)])]).await;
    let heard = hear(&site, &document(&key), &content("!r")).await;
    assert!(matches!(heard, Testimony::NotBelieved(_)));
    assert_eq!(hear(&site, &document(&key), &content("!r")).await, Testimony::Believed);
}

#[tokio::test(start_paused = true)]
async fn a_homeserver_that_hangs_holds_the_mail_up_for_a_short_while_only() {
    let key = identity("b.test").key;
    let site = site([Reply::HangsAtAnswer]).await;
    let heard = hear(&site, &document(&key), &content("!r")).await;
    assert!(matches!(heard, Testimony::NotBelieved(reason) if reason.contains("too slow")));
}

#[tokio::test(start_paused = true)]
async fn nonsense_of_the_homeserver_says_nothing() {
    let key = identity("b.test").key;
    for nonsense in ["", "[]", "{}", r#"{"pdus":7}"#, r#"{"pdus":[7,{},{"room_id":"!r"}]}"#] {
        let site = site([version(), Reply::Json(200, nonsense)]).await;
        let heard = hear(&site, &document(&key), &content("!r")).await;
        assert!(matches!(heard, Testimony::NotBelieved(_)), "{nonsense}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_server_itself_said_of_its_keys_stays() {
    let (key, found) = (identity("b.test").key, identity("old.b.test").key);
    let site = site([version(), pdus(&[event("@x:b.test", &found)])]).await;
    site.keys.trust(&document(&key)).await.unwrap();
    let heard = hear(&site, &document(&found), &content("!r")).await;
    assert!(matches!(heard, Testimony::NotBelieved(reason) if reason.contains("stronger")));
    assert_eq!(site.keys.believed(&name("b.test")).await.unwrap().document, document(&key));
}

#[tokio::test(start_paused = true)]
async fn mail_that_names_no_room_asks_nothing() {
    let key = identity("b.test").key;
    let site = site([version()]).await;
    let heard = hear(&site, &document(&key), br#"{"edus":[{}]}"#).await;
    assert!(matches!(heard, Testimony::NotBelieved(_)));
    assert!(targets(&site).is_empty());
}
