//! Registrations that are made to fill or slow down a relay, or to get in without an invite.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use restante_federation_proto::{Clock, SigningKey};
use restante_mailbox::{Invite, InviteHash, MemoryStore, Registry};
use restante_relay::Stores;
use restante_relay_api::endpoints::MAILBOX;
use restante_relay_api::{LeaveRequest, LeftMail, RegistrationRequest};
use serde_json::{Value, json};

use super::honest_clients_are_served;
use crate::harness::{Answer, TestRelay, TestServer};

const FLOOD: u8 = 100;
const ADDRESS: &str = "203.0.113.9";

/// A server that is named by a key which somebody made up.
fn made_up(number: u8) -> TestServer {
    let mut server = TestServer::new(number);
    let seed = [[number; 16], [77; 16]].concat().try_into().unwrap();
    let key = SigningKey::from_seed("ed25519:auto".parse().unwrap(), &seed);
    server.identity.server_name = restante_federation_proto::ServerName::of_key(&key.public_key());
    server.identity.key = Arc::new(key);
    server
}

async fn register_from(
    relay: &TestRelay,
    address: &str,
    server: &TestServer,
    request: &RegistrationRequest,
) -> Answer {
    let body = String::from_utf8(request.to_canonical_json()).unwrap();
    relay.send_from(address, server.request(relay, Method::PUT, MAILBOX, &body)).await
}

#[tokio::test]
async fn a_flood_of_registrations_is_429_and_an_honest_one_gets_in() {
    let relay = TestRelay::start_with("[limits]\nnewcomers_per_address_per_minute = 20").await;
    let mut registered = 0;
    for number in 0..FLOOD {
        let server = made_up(number);
        let answer = register_from(&relay, ADDRESS, &server, &server.registration(&relay)).await;
        match answer.status.as_u16() {
            200 => registered += 1,
            429 => {}
            other => panic!("{other}"),
        }
    }
    assert!((20..40).contains(&registered), "{registered} registered");
    let honest = TestServer::new(202);
    let request = honest.registration(&relay);
    register_from(&relay, "203.0.113.10", &honest, &request).await.assert_ok();
    honest_clients_are_served(&relay).await;
}

#[tokio::test]
async fn a_flood_of_servers_that_leave_and_were_never_here_is_429_and_a_true_one_leaves() {
    let relay = TestRelay::start_with("[limits]\nnewcomers_per_address_per_minute = 20").await;
    let leave = async |server: &TestServer| {
        let request = LeaveRequest { mail: LeftMail::Keep, signed_at: relay.clock.now() };
        let body = String::from_utf8(request.to_canonical_json()).unwrap();
        relay.send_from(ADDRESS, server.request(&relay, Method::DELETE, MAILBOX, &body)).await
    };
    let honest = TestServer::new(202);
    honest.register(&relay, &honest.registration(&relay)).await.assert_ok();
    let mut statuses = Vec::new();
    for number in 0..FLOOD {
        statuses.push(leave(&made_up(number)).await.status.as_u16());
    }
    assert!(statuses[..20].iter().all(|status| *status == 200), "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
    assert_eq!(statuses.last(), Some(&429));
    relay.clock.advance(Duration::from_secs(1));
    leave(&honest).await.assert_ok();
    honest_clients_are_served(&relay).await;
}

#[tokio::test]
async fn guessed_invites_are_403_and_then_429_and_the_true_one_still_admits() {
    let store = Arc::new(MemoryStore::new());
    let config = "serve = \"invited\"\n[limits]\nnewcomers_per_address_per_minute = 20";
    let relay = TestRelay::start_on(Stores::of(store.clone()), config).await;
    let (now, true_token) = (relay.clock.now(), "correct horse battery staple");
    let invite = Invite {
        hash: InviteHash::of(true_token.as_bytes()),
        server: None,
        note: String::new(),
        created_at: now,
        expires_at: now.after(Duration::from_hours(1)),
    };
    store.invite(invite).await.unwrap();
    let with = |server: &TestServer, token: &str| RegistrationRequest {
        invite: Some(token.to_owned()),
        ..server.registration(&relay)
    };
    let mut statuses = Vec::new();
    for number in 0..FLOOD {
        let server = made_up(number);
        let request = with(&server, &format!("guess {number}"));
        statuses.push(register_from(&relay, ADDRESS, &server, &request).await.status.as_u16());
    }
    assert!(statuses[..20].iter().all(|status| *status == 403), "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 403 | 429)), "{statuses:?}");
    assert_eq!(statuses.last(), Some(&429));
    let honest = TestServer::new(202);
    let request = with(&honest, true_token);
    register_from(&relay, "203.0.113.10", &honest, &request).await.assert_ok();
    honest_clients_are_served(&relay).await;
}

#[tokio::test]
async fn lists_and_patterns_beyond_their_bounds_are_400_and_bodies_413() {
    let relay = TestRelay::start().await;
    let b = TestServer::new(2);
    let register = async |senders: Value| {
        let mut body = serde_json::to_value(b.registration(&relay)).unwrap();
        body["senders"] = senders;
        b.call(&relay, Method::PUT, MAILBOX, &body.to_string()).await
    };
    let many: Vec<String> = (0..257).map(|n| format!("s{n}.example")).collect();
    register(json!({ "allow": many })).await.assert_refused(400, "M_INVALID_PARAM");
    for bad in [json!(["a b"]), json!([""]), json!(["*".repeat(256)]), json!("*"), json!([7])] {
        register(json!({ "allow": bad })).await.assert_refused(400, "M_BAD_JSON");
    }
    register(json!({ "alow": [] })).await.assert_refused(400, "M_BAD_JSON");
    let huge = json!({ "x": "x".repeat(200_000) }).to_string();
    b.call(&relay, Method::PUT, MAILBOX, &huge).await.assert_refused(413, "M_TOO_LARGE");
    honest_clients_are_served(&relay).await;
}

#[tokio::test]
async fn patterns_made_to_be_slow_cost_a_deposit_no_noticeable_time() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let mut request = b.registration(&relay);
    let bomb = format!("{}b", "*a".repeat(60));
    request.senders.block = vec![bomb.parse().unwrap(); 255];
    b.register(&relay, &request).await.assert_ok();
    let begun = Instant::now();
    a.leave(&relay, &b, "t", &a.transaction(&relay, "m")).await.assert_ok();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    honest_clients_are_served(&relay).await;
}
