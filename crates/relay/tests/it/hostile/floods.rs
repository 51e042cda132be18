//! Well-formed requests, and too many of them.

use http::header::AUTHORIZATION;
use http::{HeaderValue, Method};
use restante_federation::full;
use restante_relay_api::endpoints::send_relay_target;

use super::honest_clients_are_served;
use crate::harness::{TestRelay, TestServer};

const FLOOD: usize = 150;

/// Where the flood comes from; honest clients call from elsewhere.
const ADDRESS: &str = "203.0.113.9";

#[tokio::test]
async fn a_flood_of_bad_signatures_is_401_and_then_429() {
    let relay = TestRelay::start_with(
        "[limits]\nrequests_per_address_per_second = 1\nrequests_per_address_burst = 50",
    )
    .await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let target = send_relay_target("t", b.name());
    let body = a.transaction(&relay, "m");
    let mut refused = [0; 2];
    for _ in 0..FLOOD {
        let mut request = a.request(&relay, Method::PUT, target.as_str(), &body);
        *request.body_mut() = full(body.replace("\"m\"", "\"changed\""));
        match relay.send_from(ADDRESS, request).await.status.as_u16() {
            401 => refused[0] += 1,
            429 => refused[1] += 1,
            other => panic!("{other}"),
        }
    }
    assert!(refused[0] >= 50 && refused[1] > 0, "{refused:?}");
    honest_clients_are_served(&relay).await;
}

#[tokio::test]
async fn a_flood_of_unknown_origins_is_503_and_then_429() {
    let relay = TestRelay::start_with("[limits]\nnewcomers_per_address_per_minute = 20").await;
    let b = TestServer::new(2);
    let mut looked_up = 0;
    for number in 0..FLOOD {
        let stranger = TestServer::named(&format!("stranger{number}.example"), 3);
        let target = send_relay_target("t", b.name());
        let body = stranger.transaction(&relay, "m");
        let request = stranger.request(&relay, Method::PUT, target.as_str(), &body);
        match relay.send_from(ADDRESS, request).await.status.as_u16() {
            503 => looked_up += 1,
            429 => {}
            other => panic!("{other}"),
        }
    }
    assert!((20..40).contains(&looked_up), "{looked_up} look-ups");
    honest_clients_are_served(&relay).await;
}

#[tokio::test]
async fn one_eager_sender_is_429_and_fills_no_more_than_its_share() {
    let limits = "[limits]\nrequests_per_origin_per_second = 1\nrequests_per_origin_burst = 40\n[mailbox]\norigin_envelopes_max = 20";
    let relay = TestRelay::start_with(limits).await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let mut taken = 0;
    for number in 0..FLOOD {
        let answer = a.leave(&relay, &b, &format!("t{number}"), &a.transaction(&relay, "m")).await;
        match answer.status.as_u16() {
            200 => taken += 1,
            429 => {}
            other => panic!("{other}"),
        }
    }
    assert_eq!(taken, 20);
    honest_clients_are_served(&relay).await;
}

#[tokio::test]
async fn mail_for_made_up_mailboxes_finds_no_room_once_there_are_enough() {
    let relay = TestRelay::start_with("[storage]\nmailboxes_max = 20").await;
    honest_clients_are_served(&relay).await;
    let a = TestServer::new(1);
    let mut made = 0;
    for number in 0..FLOOD {
        let nobody = TestServer::named(&format!("nobody{number}.example"), 3);
        let answer = a.leave(&relay, &nobody, "t", &a.transaction(&relay, "m")).await;
        match answer.status.as_u16() {
            200 => made += 1,
            429 => {}
            other => panic!("{other}"),
        }
    }
    assert_eq!(made, 19, "one is an honest client's");
    honest_clients_are_served(&relay).await;
}

#[tokio::test]
async fn more_signatures_than_a_server_has_keys_are_401() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let target = send_relay_target("t", b.name());
    let mut request = a.request(&relay, Method::PUT, target.as_str(), &a.transaction(&relay, "m"));
    let signature = request.headers()[AUTHORIZATION].clone();
    for _ in 0..60 {
        request.headers_mut().append(AUTHORIZATION, signature.clone());
    }
    relay.send(request).await.assert_refused(401, "M_UNAUTHORIZED");
    let mut request = a.request(&relay, Method::PUT, target.as_str(), &a.transaction(&relay, "m"));
    let endless = format!("X-Matrix origin=\"{}\",key=\"ed25519:1\",sig=\"x\"", "a".repeat(20_000));
    request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_str(&endless).unwrap());
    relay.send(request).await.assert_refused(401, "M_UNAUTHORIZED");
    honest_clients_are_served(&relay).await;
}

#[tokio::test]
async fn json_nested_without_end_is_400() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let target = send_relay_target("t", b.name());
    for bomb in ["[".repeat(500_000), "{\"a\":".repeat(200_000)] {
        let mut request = a.request(&relay, Method::PUT, target.as_str(), "");
        *request.body_mut() = full(bomb);
        relay.send(request).await.assert_refused(400, "M_NOT_JSON");
    }
    honest_clients_are_served(&relay).await;
}
