//! What goes along with a deposit that the homeserver itself never sent.

use bytes::Bytes;
use restante_federation_proto::{Clock as _, mint};
use restante_relay_api::Capsule;

use super::*;

pub(super) const VERSION: Reply = Reply::Json(400, r#"{"room_version":"1"}"#);
pub(super) const NOTHING: Reply = Reply::Json(404, "{}");

/// An event of a room of the first version, whose events are named: `c2` is the second by c.test.
pub(super) fn event(id: &str, depth: u64, prev: &[&str]) -> String {
    let server = &id[..1];
    let prev: Vec<String> = prev.iter().map(|prev| format!(r#"["${prev}",{{}}]"#)).collect();
    format!(
        r#"{{"content":{{}},"depth":{depth},"event_id":"${id}","origin_server_ts":1700000000000,"prev_events":[{}],"room_id":"!r","sender":"@u:{server}.test","type":"m.x"}}"#,
        prev.join(",")
    )
}

pub(super) fn transaction(events: &[String]) -> String {
    format!(
        r#"{{"edus":[],"origin":"a.test","origin_server_ts":1700000000000,"pdus":[{}]}}"#,
        events.join(",")
    )
}

pub(super) fn gives(events: &[String]) -> Reply {
    let body = format!(r#"{{"pdus":[{}]}}"#, events.join(","));
    Reply::Page(200, "application/json", Bytes::from(body))
}

impl Node {
    pub(super) fn homeserver_answers(&self, replies: impl IntoIterator<Item = Reply>) {
        self.site.own_homeserver.script(&name(OWN_NAME), replies);
    }

    fn questions(&self) -> Vec<String> {
        let targets = self.site.own_homeserver.targets_of(&name(OWN_NAME)).into_iter();
        targets.filter(|target| !target.contains("/key/v2/")).collect()
    }

    /// The events in the capsule of the newest deposit at r1.test; `None` without one.
    fn capsule(&self) -> Option<(Vec<String>, Capsule)> {
        let deposits = self.site.exchange.seen_by(&name("r1.test"));
        let deposit = deposits.last().unwrap();
        let body = DepositBody::parse(deposit.body.clone()).unwrap();
        let capsule = body.extras.capsule.map(|json| Capsule::parse(&json).unwrap());
        let vouched = waybill_of_deposit(deposit).capsule_sha256;
        assert_eq!(vouched, capsule.as_ref().map(|capsule| hex(capsule.sha256())));
        let id = |pdu: &Bytes| {
            let pdu: serde_json::Value = serde_json::from_slice(pdu).unwrap();
            pdu["event_id"].as_str().unwrap()[1..].to_owned()
        };
        capsule.map(|capsule| (capsule.pdus().iter().map(id).collect(), capsule))
    }

    fn ids(&self) -> Vec<String> {
        self.capsule().map(|(ids, _)| ids).unwrap_or_default()
    }
}

/// A node whose homeserver sent a1 to b.test, which is offline since.
async fn after_one_delivery() -> Node {
    let node = Node::with_relays(&["r1.test"]).await;
    node.relay_answers("r1.test", Reply::Json(200, "{}"));
    node.b_answers(Reply::Json(200, "{}"));
    node.homeserver_answers([VERSION, NOTHING]);
    let (status, _, _) = node.send_content("1", &transaction(&[event("a1", 1, &[])])).await;
    assert_eq!(status, 200);
    node.noted().await;
    node.b_answers(Reply::Refused);
    node
}

#[tokio::test(start_paused = true)]
async fn no_answer_waits_for_what_the_homeserver_says_of_a_room() {
    let node = Node::with_relays(&[]).await;
    node.b_answers(Reply::Json(200, "{}"));
    node.homeserver_answers([Reply::HangsAtAnswer]);
    let (status, _, took) = node.send_content("1", &transaction(&[event("a1", 1, &[])])).await;
    assert_eq!((status, took), (200, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn what_the_catch_up_leaves_out_goes_along() {
    let node = after_one_delivery().await;
    let [a1, a2, a3] = [event("a1", 1, &[]), event("a2", 2, &["a1"]), event("a3", 3, &["a2"])];
    node.homeserver_answers([gives(&[a3, a2, a1]), NOTHING]);
    node.send_content("2", &transaction(&[event("a4", 4, &["a3"])])).await;
    assert_eq!(node.ids(), ["a2", "a3"]);
    assert!(node.questions()[1].contains("/backfill/%21r?"), "{:?}", node.questions());
}

#[tokio::test(start_paused = true)]
async fn what_goes_along_or_was_left_is_not_left_again_also_after_a_restart() {
    let node = after_one_delivery().await;
    node.homeserver_answers([gives(&[event("c1", 2, &["a1"])]), NOTHING]);
    node.send_content("2", &transaction(&[event("a2", 3, &["c1"])])).await;
    assert_eq!(node.ids(), ["c1"]);
    let node = node.restarted().await;
    let asked = node.questions().len();
    node.send_content("3", &transaction(&[event("a3", 4, &["a2", "c1"])])).await;
    assert_eq!((node.ids(), node.questions().len()), (Vec::new(), asked));
}

#[tokio::test(start_paused = true)]
async fn the_keys_of_third_servers_go_along() {
    let node = after_one_delivery().await;
    let until = node.site.clock.now().after(Duration::from_secs(3600));
    let document = mint(&name("c.test"), &identity("c.test").key, None, until);
    node.site.keys.trust(&document).await.unwrap();
    let [c1, a2] = [event("c1", 2, &["a1"]), event("a2", 3, &["c1"])];
    node.homeserver_answers([gives(&[a2, c1]), NOTHING]);
    node.send_content("2", &transaction(&[event("a3", 4, &["a2"])])).await;
    let (ids, capsule) = node.capsule().unwrap();
    assert_eq!(ids, ["c1", "a2"]);
    let servers: Vec<&ServerName> = capsule.keys().keys().collect();
    assert_eq!(servers, [&name("c.test")]);
    assert_eq!(capsule.keys()[&name("c.test")], document.raw());
}

#[tokio::test(start_paused = true)]
async fn the_destinations_own_events_and_what_they_follow_stay_out() {
    let node = after_one_delivery().await;
    let [b1, c1] = [event("b1", 3, &["c1"]), event("c1", 2, &["a0"])];
    node.homeserver_answers([gives(&[b1, c1]), NOTHING]);
    node.send_content("2", &transaction(&[event("a2", 4, &["b1", "c1"])])).await;
    assert_eq!(node.ids(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn an_event_that_the_destination_refused_is_not_known_there() {
    let node = after_one_delivery().await;
    node.site.clock.advance(Duration::from_secs(60));
    node.b_answers(Reply::Json(200, r#"{"pdus":{"$a2":{"error":"no"},"$a9":{}}}"#));
    node.send_content("2", &transaction(&[event("a2", 2, &["a1"])])).await;
    node.b_answers(Reply::Refused);
    node.homeserver_answers([gives(&[event("a2", 2, &["a1"])]), NOTHING]);
    node.send_content("3", &transaction(&[event("a3", 3, &["a2"])])).await;
    assert_eq!(node.ids(), ["a2"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_homeserver_does_not_have_holds_no_deposit_up() {
    let node = after_one_delivery().await;
    node.homeserver_answers([gives(&[]), gives(&[]), NOTHING]);
    let (status, _, _) = node.send_content("2", &transaction(&[event("a3", 3, &["a2"])])).await;
    assert_eq!((status, node.ids()), (200, Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_homeserver_that_does_not_answer_its_own_node_holds_no_deposit_up() {
    let node = after_one_delivery().await;
    node.b_answers(Reply::HangsAtConnect);
    node.homeserver_answers([Reply::HangsAtAnswer]);
    let (status, _, took) = node.send_content("2", &transaction(&[event("a3", 3, &["a2"])])).await;
    assert_eq!((status, node.ids()), (200, Vec::new()));
    assert!(took < schedule::CALL_BUDGET, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_left_again_goes_with_the_capsule_that_it_had() {
    let node = after_one_delivery().await;
    let [a1, a2, a3] = [event("a1", 1, &[]), event("a2", 2, &["a1"]), event("a3", 3, &["a2"])];
    node.homeserver_answers([gives(&[a3.clone(), a2, a1]), NOTHING]);
    assert_eq!(node.send_content("3", &transaction(&[a3])).await.0, 200);
    let first = node.capsule().unwrap();
    assert_eq!(first.0, ["a2"]);

    // The relay lost it, and everything counts as being there.
    node.site.run_sql("DELETE FROM ledger_holders").await;
    node.homeserver_answers([NOTHING]);
    let left = node.site.run(node.delivery.leave_copy(&node.b, 2)).await;
    assert_eq!(left, again::Releft::Left);
    assert_eq!(node.site.exchange.seen_by(&name("r1.test")).len(), 2);
    assert_eq!(node.capsule().unwrap(), first);
}
