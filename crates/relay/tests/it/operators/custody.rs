//! What an operator sees of mailboxes, and does with them.

use restante_relay_api::{InviteLine, RegistrationRequest};

use super::*;

#[tokio::test]
async fn mailboxes_are_listed_page_by_page() {
    let relay = TestRelay::start().await;
    let a = TestServer::new(1);
    let mut names = Vec::new();
    for seed in 2..5 {
        let server = TestServer::new(seed);
        a.leave(&relay, &server, "1", &a.transaction(&relay, "hello")).await.assert_ok();
        names.push(server.name().to_string());
    }
    names.sort();
    let (mut listed, mut after) = (Vec::new(), String::new());
    loop {
        let (items, next) = page(&relay, &format!("/mailboxes?limit=2{after}")).await;
        assert!(items.iter().all(|item| item["envelopes"] == 1 && item["held"] == false));
        listed.extend(items.iter().map(|item| item["recipient"].as_str().unwrap().to_owned()));
        let Some(next) = next else { break };
        after = format!("&after={next}");
    }
    assert_eq!(listed, names);
    relay.operator(GET, "/mailboxes?limit=x", "").await.assert_refused(400, "M_INVALID_PARAM");
    relay.operator(GET, "/mailboxes?after=%20", "").await.assert_refused(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn a_mailbox_shows_who_filled_it_and_its_envelopes_without_their_content() {
    let (relay, [a, b, c]) = relay_with_mail().await;
    let shown = relay.operator(GET, &mailbox(&c), "").await.assert_ok();
    assert_eq!((&shown["envelopes"], &shown["registration"]), (&json!(3), &Value::Null));
    let shares = shown["shares"].as_array().unwrap();
    let of = |server: &TestServer| {
        shares.iter().find(|share| share["origin"] == server.name().as_str()).unwrap()["envelopes"]
            .clone()
    };
    assert_eq!((of(&a), of(&b)), (json!(2), json!(1)));

    let target = format!("{}/envelopes", mailbox(&c));
    let (first, next) = page(&relay, &format!("{target}?limit=2")).await;
    let (rest, end) = page(&relay, &format!("{target}?limit=2&after={}", next.unwrap())).await;
    assert_eq!((first.len(), rest.len(), end), (2, 1, None));
    assert_eq!(rest[0]["txn_id"], "1");
    assert!(rest[0].get("content").is_none() && rest[0]["expires_at"].is_u64());
    let nobody = TestServer::new(9);
    for rest in ["", "/envelopes", "/export"] {
        let answer = relay.operator(GET, &format!("{}{rest}", mailbox(&nobody)), "").await;
        answer.assert_refused(404, "M_NOT_FOUND");
    }
}

#[tokio::test]
async fn a_held_mailbox_takes_mail_and_hands_none_out_until_it_is_released() {
    let (relay, [a, _, c]) = relay_with_mail().await;
    relay.operator(POST, &format!("{}/hold", mailbox(&c)), "").await.assert_ok();
    assert_eq!(found(&relay, &c).await, Vec::<String>::new());
    a.leave(&relay, &c, "9", &a.transaction(&relay, "four")).await.assert_ok();
    assert_eq!(relay.operator(GET, &mailbox(&c), "").await.assert_ok()["held"], true);
    relay.operator(POST, &format!("{}/release", mailbox(&c)), "").await.assert_ok();
    assert_eq!(found(&relay, &c).await, ["one", "two", "three", "four"]);
    for command in ["hold", "release"] {
        let target = format!("{}/{command}", mailbox(&a));
        relay.operator(POST, &target, "").await.assert_refused(404, "M_NOT_FOUND");
    }
}

#[tokio::test]
async fn an_evicted_server_collects_what_it_has_and_comes_back_with_another_invite_alone() {
    let relay = TestRelay::start_with("serve = \"invited\"").await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let evict = format!("{}/evict", mailbox(&b));
    relay.operator(POST, &evict, "").await.assert_refused(404, "M_NOT_FOUND");
    let made = relay.operator(POST, "/invites", "{}").await.assert_ok();
    let InviteLine { invite, .. } = made["line"].as_str().unwrap().parse().unwrap();
    let invited = RegistrationRequest { invite, ..b.registration(&relay) };
    b.register(&relay, &invited).await.assert_ok();
    a.leave(&relay, &b, "1", &a.transaction(&relay, "before")).await.assert_ok();

    relay.operator(POST, &evict, "").await.assert_ok();
    let refused = a.leave(&relay, &b, "2", &a.transaction(&relay, "after")).await;
    refused.assert_refused(403, "M_FORBIDDEN");
    b.register(&relay, &invited).await.assert_refused(403, "M_FORBIDDEN");
    relay.clock.advance(std::time::Duration::from_secs(1));
    b.register(&relay, &b.registration(&relay)).await.assert_refused(403, "M_FORBIDDEN");
    assert_eq!(found(&relay, &b).await, ["before"]);
    relay.operator(POST, &evict, "").await.assert_refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn a_release_wakes_who_waits() {
    let (relay, [.., c]) = relay_with_mail().await;
    relay.operator(POST, &format!("{}/hold", mailbox(&c)), "").await.assert_ok();
    let request = restante_relay_api::CollectRequest { wait_ms: 30_000, ..collect_all(&relay) };
    let waiting = async {
        let collected = c.collect(&relay, &request).await;
        assert_eq!(texts(&collected).len(), 3);
    };
    let releasing = async {
        loop {
            let status = relay.operator(GET, "/status", "").await.assert_ok();
            if status["waiting_collects"] == 1 {
                break;
            }
            tokio::task::yield_now().await;
        }
        relay.operator(POST, &format!("{}/release", mailbox(&c)), "").await.assert_ok();
    };
    tokio::join!(waiting, releasing);
}

#[tokio::test]
async fn exactly_the_named_mail_is_dropped_and_counted() {
    let (relay, [a, b, c]) = relay_with_mail().await;
    let target = format!("{}/drop", mailbox(&c));
    let (envelopes, _) = page(&relay, &format!("{}/envelopes", mailbox(&c))).await;
    let first = json!({ "id": envelopes[0]["id"] }).to_string();
    assert_eq!(relay.operator(POST, &target, first).await.assert_ok()["dropped"], 1);
    let of_b = json!({ "origin": b.name() }).to_string();
    assert_eq!(relay.operator(POST, &target, of_b).await.assert_ok()["dropped"], 1);
    assert_eq!(found(&relay, &c).await, ["two"]);
    let all = "{\"all\":true}";
    assert_eq!(relay.operator(POST, &target, all).await.assert_ok()["dropped"], 1);

    let shown = relay.operator(GET, &mailbox(&c), "").await.assert_ok();
    assert_eq!((&shown["envelopes"], &shown["dropped_total"]), (&json!(0), &json!(3)));
    let losses = shown["losses"].as_array().unwrap();
    assert!(losses.iter().all(|loss| loss["kind"] == "dropped"), "{losses:?}");
    let of_a = losses.iter().find(|loss| loss["origin"] == a.name().as_str()).unwrap();
    assert_eq!(of_a["count"], 2);
}

#[tokio::test]
async fn mail_that_is_not_clearly_named_stays() {
    let (relay, [.., c]) = relay_with_mail().await;
    let target = format!("{}/drop", mailbox(&c));
    for unclear in [
        "",
        "{}",
        "{\"all\":false}",
        "{\"all\":true,\"id\":1}",
        "{\"id\":0}",
        "{\"id\":-1}",
        "{\"origin\":\"\"}",
        "{\"everything\":true}",
        "[]",
        "all",
    ] {
        let answer = relay.operator(POST, &target, unclear).await;
        answer.assert_refused(400, "M_INVALID_PARAM");
    }
    assert_eq!(found(&relay, &c).await.len(), 3);
}
