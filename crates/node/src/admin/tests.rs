//! The admin API's commands on keys and parked mail, over a node with a homeserver and a relay in memory.

mod outbox;

use std::collections::BTreeSet;

use axum::Router;
use http::header::AUTHORIZATION;
use http::{Method, Request};
use restante_federation::{Body, collect_limited, full};
use restante_operators::{BASE, RequestDurations};
use restante_relay_api::{RecordedRelay, RelayRecord};
use restante_sqlite::rusqlite::Connection;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::config::DeliverySection;
use crate::relay_records::{LearnedFrom, Recorded};
use crate::retriever::RelayStatus;
use crate::test_inbound::{InboundSite, RELAY, ROOM, Writer, status_when};
use crate::test_site::{BEGINNING, identity, name};

/// The operator of a site.
struct Operator {
    router: Router,
    token: String,
}

impl Operator {
    async fn of(site: &InboundSite, inbox: Inbox) -> Self {
        let policy = DeliverySection::default();
        let delivery = Delivery::open(site.node.delivery_parts(&policy)).await.unwrap();
        let site = site.node.site.clone();
        let folder = tempfile::tempdir().unwrap();
        let token = open_token(folder.path()).unwrap();
        let text = std::fs::read_to_string(folder.path().join("admin-token")).unwrap();
        let retriever = RetrieverStatus::default();
        let (metrics, _) = crate::metrics::of(&site, &inbox, &retriever, folder.path());
        let readiness = ready::readiness(site.database.clone());
        let registrations = Registrations::new(site.clone(), Default::default());
        let state =
            AdminState { site, delivery, inbox, retriever, registrations, readiness, reload: None };
        Self { router: door(state, metrics, token).router(), token: text }
    }

    async fn call(
        &self,
        method: Method,
        target: &str,
        body: impl Into<bytes::Bytes>,
    ) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(format!("{BASE}{target}"))
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .body(axum::body::Body::from(body.into()))
            .unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body: Body =
            full(axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap());
        let body = collect_limited(body, usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn get(&self, target: &str) -> Value {
        let (status, body) = self.call(Method::GET, target, "").await;
        assert_eq!(status, 200, "{body}");
        body
    }

    async fn refused(
        &self,
        method: Method,
        target: &str,
        body: impl Into<bytes::Bytes>,
    ) -> (u16, String) {
        let (status, body) = self.call(method, target, body).await;
        assert!(status >= 400, "{body}");
        (status, body["error"].as_str().unwrap().to_owned())
    }

    async fn done(&self, method: Method, target: &str, body: impl Into<bytes::Bytes>) -> Value {
        let (status, body) = self.call(method, target, body).await;
        assert_eq!(status, 200, "{body}");
        body
    }
}

fn unverified(status: &crate::inbox::InboxStatus) -> u64 {
    status.counts.get("unverified_first_contact").copied().unwrap_or(0)
}

#[test]
fn every_command_is_documented() {
    let documented = restante_operators::undocumented(routes().endpoints(), &document::document());
    assert_eq!(documented, []);
}

#[tokio::test(start_paused = true)]
async fn every_command_needs_the_token() {
    let site = InboundSite::with_room().await;
    site.run_with(async |inbox| {
        let mut operator = Operator::of(&site, inbox).await;
        operator.token.push('x');
        for (method, target) in [
            (Method::GET, "/keys"),
            (Method::GET, "/keys/b.test"),
            (Method::PUT, "/keys/b.test"),
            (Method::DELETE, "/keys/b.test"),
            (Method::POST, "/relays/join"),
            (Method::POST, "/relays/r.test/leave"),
            (Method::GET, "/parked"),
            (Method::POST, "/parked/retry"),
            (Method::GET, "/parked/mail-1"),
            (Method::POST, "/parked/mail-1/retry"),
            (Method::DELETE, "/parked/mail-1"),
        ] {
            assert_eq!(operator.refused(method, target, "").await.0, 401, "{target}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn mail_is_delivered_once_the_operator_trusts_the_key_that_came_with_it() {
    let site = InboundSite::with_room().await;
    let (mut writer, mut impostor) = (Writer::new("b.test"), Writer::impostor("b.test"));
    site.hold(&[writer.message(ROOM), writer.message(ROOM), impostor.edu()]);
    site.run_with(async |inbox| {
        status_when(&inbox, |status| unverified(status) == 3).await;
        let operator = Operator::of(&site, inbox.clone()).await;
        let about = operator.get("/keys/b.test").await;
        assert_eq!(about["believed"], Value::Null);
        let offered = about["offered"].as_array().unwrap();
        assert_eq!((offered.len(), &offered[0]["envelopes"]), (2, &json!(2)));
        assert_eq!(offered[0]["relays"], json!([RELAY]));

        let document = offered[0]["document"].to_string();
        operator.done(Method::PUT, "/keys/b.test", document).await;
        let status = status_when(&inbox, |status| status.confirmed_total == 2).await;
        assert_eq!(unverified(&status), 0);
        let believed = operator.get("/keys").await;
        assert_eq!(believed[0]["server_name"], "b.test");
        assert_eq!(believed[0]["keys"], offered[0]["keys"]);
    })
    .await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn mail_that_a_wrong_key_made_look_forged_is_judged_again() {
    let site = InboundSite::with_room().await;
    let (mut writer, impostor) = (Writer::new("b.test"), Writer::impostor("b.test"));
    site.hold(&[writer.message(ROOM)]);
    site.run_with(async |inbox| {
        status_when(&inbox, |status| unverified(status) == 1).await;
        let operator = Operator::of(&site, inbox.clone()).await;
        operator.done(Method::PUT, "/keys/b.test", impostor.document().raw().clone()).await;
        status_when(&inbox, |status| status.counts.get("parked") == Some(&1)).await;
        let parked = operator.get("/parked").await;
        assert_eq!(parked[0]["state"], "forged");

        operator.done(Method::PUT, "/keys/b.test", writer.document().raw().clone()).await;
        let target = format!("/parked/{}/retry", parked[0]["id"].as_str().unwrap());
        let retried = operator.done(Method::POST, &target, "").await;
        assert_eq!(retried["now"], "is judged again");
        status_when(&inbox, |status| status.confirmed_total == 1).await;
    })
    .await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn forgotten_keys_are_believed_no_longer() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.run_with(async |inbox| {
        let operator = Operator::of(&site, inbox.clone()).await;
        operator.done(Method::DELETE, "/keys/b.test", "").await;
        assert_eq!(operator.get("/keys").await, json!([]));
        assert_eq!(operator.refused(Method::DELETE, "/keys/b.test", "").await.0, 404);
        site.hold(&[writer.message(ROOM)]);
        status_when(&inbox, |status| unverified(status) == 1).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn only_a_document_that_its_server_signed_can_be_trusted() {
    let site = InboundSite::with_room().await;
    let writer = Writer::new("b.test");
    site.run_with(async |inbox| {
        let operator = Operator::of(&site, inbox).await;
        let document = writer.document().raw().clone();
        let altered = String::from_utf8(document.to_vec()).unwrap().replace("b.test", "c.test");
        let huge = vec![b' '; 1024 * 1024];
        let own = format!("/keys/{}", crate::test_site::OWN_NAME);
        let key_named = format!("/keys/{}", "ab".repeat(32));
        for (target, body) in [
            ("/keys/c.test", document.clone()),
            ("/keys/c.test", altered.into()),
            ("/keys/b.test", huge.into()),
            ("/keys/b.test", "{}".into()),
            ("/keys/b.test", "".into()),
            (own.as_str(), document.clone()),
            (key_named.as_str(), document),
            ("/keys/no%20name", "{}".into()),
        ] {
            assert_eq!(operator.refused(Method::PUT, target, body).await.0, 400, "{target}");
        }
        assert_eq!(operator.get("/keys").await, json!([]));
        assert_eq!(operator.get(&own).await["believed"]["evidence"], "own key");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn parked_mail_is_shown_whole_and_delivered_when_it_is_tried_again() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.homeserver.answer_next(&[(403, r#"{"errcode":"M_FORBIDDEN","error":"no such luck"}"#)]);
    site.hold(&[writer.message(ROOM)]);
    site.run_with(async |inbox| {
        status_when(&inbox, |status| status.parked_total == 1).await;
        let operator = Operator::of(&site, inbox.clone()).await;
        let parked = operator.get("/parked").await;
        assert!(parked[0]["reason"].as_str().unwrap().contains("no such luck"));
        assert_eq!(parked[0]["relay"], RELAY);
        let target = format!("/parked/{}", parked[0]["id"].as_str().unwrap());
        let whole = operator.get(&target).await;
        assert_eq!(whole["content"]["pdus"][0]["content"]["body"], "hello");
        assert!(whole["authorization"].as_str().unwrap().starts_with("X-Matrix"));

        let retried = operator.done(Method::POST, &format!("{target}/retry"), "").await;
        assert_eq!(retried["now"], "waits for delivery");
        status_when(&inbox, |status| status.confirmed_total == 1).await;
        assert_eq!(operator.refused(Method::POST, &format!("{target}/retry"), "").await.0, 404);
        assert_eq!(operator.refused(Method::GET, &target, "").await.0, 404);
    })
    .await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn all_parked_mail_is_tried_again_once() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.homeserver.answer_next(&[(403, "{}"); 4]);
    site.hold(&[writer.edu(), writer.edu(), writer.edu()]);
    site.run_with(async |inbox| {
        status_when(&inbox, |status| status.parked_total == 3).await;
        let operator = Operator::of(&site, inbox.clone()).await;
        let all = operator.done(Method::POST, "/parked/retry", "").await;
        assert_eq!(all, json!({ "retried": 3, "refused": 0 }));
        let status = status_when(&inbox, |status| status.confirmed_total == 2);
        assert_eq!(status.await.parked_total, 4);
        assert_eq!(operator.get("/parked").await.as_array().unwrap().len(), 1);
    })
    .await;
    assert_eq!(site.homeserver.edus(), 2);
}

#[tokio::test(start_paused = true)]
async fn dropped_mail_is_gone_counted_and_makes_room() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.homeserver.answer_next(&[(403, "{}")]);
    site.hold(&[writer.edu()]);
    site.run_with(async |inbox| {
        status_when(&inbox, |status| status.parked_total == 1).await;
        let operator = Operator::of(&site, inbox.clone()).await;
        let id = operator.get("/parked").await[0]["id"].as_str().unwrap().to_owned();
        operator.done(Method::DELETE, &format!("/parked/{id}"), "").await;
        assert_eq!(operator.get("/parked").await, json!([]));
        let inbox = operator.get("/status").await["inbox"].clone();
        assert_eq!((&inbox["dropped_total"], &inbox["waiting"]), (&json!(1), &json!([])));
        let again = operator.refused(Method::DELETE, &format!("/parked/{id}"), "").await;
        assert_eq!(again.0, 404);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_stays_parked_and_says_so() {
    let site = InboundSite::with_room().await;
    let day = std::time::Duration::from_secs(24 * 3600);
    let mut old = Writer::new("b.test").signs_at(crate::test_site::BEGINNING.before(31 * day));
    site.knows(&old).await;
    site.hold(&[old.edu()]);
    site.run_with(async |inbox| {
        status_when(&inbox, |status| status.parked_total == 1).await;
        let operator = Operator::of(&site, inbox).await;
        let id = operator.get("/parked").await[0]["id"].as_str().unwrap().to_owned();
        let refusal = operator.refused(Method::POST, &format!("/parked/{id}/retry"), "").await;
        assert_eq!(refusal.0, 409);
        assert!(refusal.1.contains(&id) && refusal.1.contains("longer ago"), "{}", refusal.1);
        let all = operator.done(Method::POST, "/parked/retry", "").await;
        assert_eq!(all, json!({ "retried": 0, "refused": 1 }));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn ids_that_name_nothing_are_refused() {
    let site = InboundSite::with_room().await;
    site.run_with(async |inbox| {
        let operator = Operator::of(&site, inbox).await;
        for id in ["17", "mail-", "mail-x", "mail-99999999999999999999", "room-1", "%00"] {
            let refusal = operator.refused(Method::GET, &format!("/parked/{id}"), "").await;
            assert_eq!(refusal.0, 400, "{id}");
        }
        assert_eq!(operator.refused(Method::GET, "/parked/mail-99", "").await.0, 404);
        assert_eq!(operator.refused(Method::GET, "/parked?limit=x", "").await.0, 400);
    })
    .await;
}

/// What a monitor sees at `target`, without a token.
async fn seen(router: Router, target: &str) -> (u16, String) {
    let request = Request::get(target).body(axum::body::Body::empty()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_mail_is_counted_for_monitors() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.homeserver.answer_next(&[(403, "{}")]);
    site.hold(&[writer.edu(), writer.message(ROOM)]);
    site.run_with(async |inbox| {
        status_when(&inbox, |status| status.parked_total + status.confirmed_total == 2).await;
        let operator = Operator::of(&site, inbox).await;
        let (_, metrics) = seen(operator.router, "/metrics").await;
        for line in [
            "restante_node_inbox_confirmed_total 1",
            "restante_node_inbox_parked_total 1",
            "restante_node_inbox_envelopes{state=\"parked\"} 1",
            "restante_node_inbox_envelopes{state=\"waiting\"} 0",
            "restante_node_deliveries_total{outcome=\"relayed\"} 0",
            "restante_node_destinations_offline 0",
        ] {
            assert!(metrics.lines().any(|found| found == line), "no {line} in {metrics}");
        }
        assert!(!metrics.contains("b.test"), "a stranger chose a label: {metrics}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_has_never_answered_is_as_old_for_monitors_as_the_node_runs() {
    let site = InboundSite::with_room().await;
    site.run_with(async |inbox| {
        let operator = Operator::of(&site, inbox).await;
        site.node.clock.advance(std::time::Duration::from_secs(700));
        let (_, metrics) = seen(operator.router, "/metrics").await;
        let line = format!("restante_node_relay_last_collect_age_seconds{{relay=\"{RELAY}\"}} 700");
        assert!(metrics.lines().any(|found| found == line), "no {line} in {metrics}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_dashboard_names_no_metric_that_a_node_does_not_export() {
    let site = InboundSite::with_room().await;
    site.run_with(async |inbox| {
        let (site, retriever) = (&site.node.site, RetrieverStatus::default());
        let folder = tempfile::tempdir().unwrap();
        let (metrics, durations) = crate::metrics::of(site, &inbox, &retriever, folder.path());
        // What has a label shows itself with the first relay that answers, and the first request.
        let queued = restante_relay_api::Queued { count: 1, bytes: 1, oldest_at: None };
        let answer = RelayStatus {
            last_collect_at: Some(site.clock.now()),
            queued: Some(queued),
            ..RelayStatus::default()
        };
        retriever.answered(&RELAY.parse().unwrap(), answer);
        let measured = axum::middleware::from_fn_with_state(durations, RequestDurations::measure);
        let requested = Router::new().fallback(async || "").layer(measured);
        assert_eq!(seen(requested, "/").await.0, 200);

        let text = metrics.text().await;
        let exported: BTreeSet<&str> =
            text.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
        let dashboard = include_str!("../../../../contrib/grafana/restante.json");
        let words =
            dashboard.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
        for name in words.filter(|word| word.starts_with("restante_node_")) {
            assert!(exported.contains(name), "{name} is not in {text}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_tells_monitors_that_it_is_alive_and_has_no_file_to_read_again_unless_it_was_given_one()
 {
    let site = InboundSite::with_room().await;
    site.run_with(async |inbox| {
        let operator = Operator::of(&site, inbox).await;
        assert_eq!(seen(operator.router.clone(), "/health").await.0, 200);
        assert_eq!(operator.refused(Method::POST, "/reload", "").await.0, 409);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn each_relay_is_listed_with_where_the_knowledge_came_from() {
    let site = InboundSite::new(&[]).await;
    let inbox = Inbox::open(site.node.site.clone(), crate::test_inbound::GAP_WAIT).await.unwrap();
    let relay = RecordedRelay {
        server_name: name("r.test"),
        url: Some("https://r.test:8448".to_owned()),
        priority: 3,
    };
    let record =
        RelayRecord { server_name: name("b.test"), relays: vec![relay], version: BEGINNING };
    let json = record.signed(&identity("b.test").key);
    let recorded = Recorded {
        record,
        learned_from: LearnedFrom::Relay(name("x.test")),
        learned_at: BEGINNING,
    };
    let put = move |connection: &Connection| {
        crate::store::relay_records::put(connection, &json, &recorded)
    };
    assert!(site.node.database.write(put).await.unwrap());
    let operator = Operator::of(&site, inbox).await;
    let listed = operator.get("/relays?server=b.test").await;
    let expected = json!([{
        "server": "b.test", "server_name": "r.test", "url": "https://r.test:8448", "source": "record", "in_force": true,
        "outgoing": false, "priority": 3, "learned_from": "relay x.test", "learned_at": BEGINNING, "version": BEGINNING,
    }]);
    assert_eq!(listed, expected);

    let refused = operator.refused(Method::DELETE, "/relays/b.test/r.test", "").await;
    assert!(refused.0 == 404 && refused.1.contains("b.test itself names r.test"), "{refused:?}");
    operator.done(Method::PUT, "/relays/b.test/mine.test", "").await;
    operator.done(Method::PUT, "/relays/a.test/ours.test", "").await;
    let listed = operator.get("/relays").await;
    let lines: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|line| {
            (
                line["server_name"].as_str().unwrap(),
                line["source"].as_str().unwrap(),
                line["in_force"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            ("ours.test", "operator", true),
            ("mine.test", "operator", true),
            ("r.test", "record", false)
        ]
    );
}
