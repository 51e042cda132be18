//! Invites are made, listed and revoked.

use restante_federation_proto::Clock as _;
use restante_relay_api::InviteLine;

use super::*;

#[tokio::test]
async fn an_invite_is_one_line_whose_token_is_told_once() {
    let (relay, _file) =
        TestRelay::start_reloadable("public_url = \"https://relay.example:443\"").await;
    let body = json!({ "server": "b.example", "expires_in_ms": 60_000, "note": "for b" });
    let made = relay.operator(POST, "/invites", body.to_string()).await.assert_ok();
    let line: InviteLine = made["line"].as_str().unwrap().parse().unwrap();
    assert_eq!(&line.relay, relay.name());
    assert!(line.url.unwrap().starts_with("https://relay.example"));
    let in_a_minute = relay.clock.now().after(std::time::Duration::from_secs(60));
    assert_eq!(made["expires_at"], in_a_minute.as_millis());

    let (listed, next) = page(&relay, "/invites").await;
    assert_eq!((listed.len(), next), (1, None));
    assert_eq!(listed[0]["id"], made["id"]);
    assert_eq!((&listed[0]["server"], &listed[0]["note"]), (&json!("b.example"), &json!("for b")));
    assert!(!listed[0].to_string().contains(&line.invite.unwrap()));
}

#[tokio::test]
async fn a_revoked_invite_is_gone() {
    let relay = TestRelay::start().await;
    let made = relay.operator(POST, "/invites", "").await.assert_ok();
    let target = format!("/invites/{}", made["id"].as_str().unwrap());
    relay.operator(Method::DELETE, &target, "").await.assert_ok();
    assert!(page(&relay, "/invites").await.0.is_empty());
    relay.operator(Method::DELETE, &target, "").await.assert_refused(404, "M_NOT_FOUND");
    relay.operator(Method::DELETE, "/invites/x", "").await.assert_refused(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn invites_are_listed_page_by_page() {
    let relay = TestRelay::start().await;
    for _ in 0..3 {
        relay.operator(POST, "/invites", "{}").await.assert_ok();
    }
    let (first, next) = page(&relay, "/invites?limit=2").await;
    let (rest, end) = page(&relay, &format!("/invites?limit=2&after={}", next.unwrap())).await;
    assert_eq!((first.len(), rest.len(), end), (2, 1, None));
}

#[tokio::test]
async fn an_invite_must_have_an_end_and_a_short_note() {
    let relay = TestRelay::start().await;
    let long = json!({ "note": "n".repeat(501) }).to_string();
    for wrong in [
        "{\"expires_in_ms\":0}",
        "{\"expires_in_ms\":99999999999999}",
        "{\"server\":\"no name\"}",
        "{\"serve\":\"b.example\"}",
        &long,
    ] {
        relay
            .operator(POST, "/invites", wrong.to_owned())
            .await
            .assert_refused(400, "M_INVALID_PARAM");
    }
    assert!(page(&relay, "/invites").await.0.is_empty());
}
