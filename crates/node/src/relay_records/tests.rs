//! Which records count, whom a node asks for them, and when, over scripted servers.

use std::time::Duration;

use futures_util::FutureExt as _;
use restante_federation_proto::{KeyDocument, mint};
use restante_relay_api::RecordedRelay;
use restante_relay_api::endpoints::relays_target;
use restante_relay_api::limits::RECORD_BYTES_MAX;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::test_site::{BEGINNING, OWN_NAME, Reply, TestSite, identity, name};

const NOT_KNOWN: &str = r#"{"errcode":"M_NOT_FOUND","error":"No relay record of that server"}"#;

fn at(seconds: u64) -> Timestamp {
    BEGINNING.after(Duration::from_secs(seconds))
}

fn document(server: &str) -> KeyDocument {
    let of_server = identity(server);
    let valid_until = BEGINNING.after(Duration::from_secs(37 * 24 * 3600));
    mint(&of_server.server_name, &of_server.key, None, valid_until)
}

/// The record of `server` that names these relays, signed by `signer`.
fn record_by(signer: &str, server: &str, relays: &[&str], version: Timestamp) -> Bytes {
    let relays = (0..).zip(relays).map(|(priority, relay)| RecordedRelay {
        server_name: name(relay),
        url: None,
        priority,
    });
    let record = RelayRecord { server_name: name(server), relays: relays.collect(), version };
    record.signed(&identity(signer).key).into()
}

fn record(server: &str, relays: &[&str], version: Timestamp) -> Bytes {
    record_by(server, server, relays, version)
}

/// A record whose key has to be asked for.
fn with_unknown_key(server: &str) -> Bytes {
    let json = String::from_utf8(record(server, &["liar.test"], at(99)).to_vec()).unwrap();
    let key_id = identity(server).key.id().to_string();
    json.replace(&key_id, "ed25519:made_up").into()
}

struct Node {
    site: TestSite,
    records: RelayRecords,
}

impl Node {
    /// A node that has had to do with b.test, and believes its key.
    async fn new() -> Self {
        let site = TestSite::new().await;
        site.keys.trust(&document("b.test")).await.unwrap();
        Self { records: site.records(), site }
    }

    async fn takes(&self, server: &str, json: Bytes) -> bool {
        let candidate = Candidate { server: name(server), json, from: LearnedFrom::WellKnown };
        self.records.take_in(&candidate).await == Taken::Learned
    }

    async fn relays_of(&self, server: &str) -> Vec<String> {
        let relays = self.site.relays.holding(&name(server)).await.unwrap();
        relays.iter().map(|relay| relay.name.to_string()).collect()
    }

    async fn learned_from(&self, server: &str) -> Option<LearnedFrom> {
        let known = self.site.relays.record_of(&name(server)).await.unwrap();
        known.map(|known| known.learned_from)
    }

    /// Searches, and lets time pass until everybody has answered.
    async fn finds(&self, server: &str) -> Vec<String> {
        let wait = Duration::from_secs(60);
        self.site
            .run(async {
                self.records.find(&name(server), wait).await;
                tokio::time::sleep(Duration::from_secs(10)).await;
            })
            .await;
        self.relays_of(server).await
    }

    /// Looks for a newer record, and lets time pass until everybody has answered.
    async fn refreshes(&self, server: &str) -> Vec<String> {
        self.site
            .run(async {
                self.records.look_for(&name(server), Need::Newer);
                tokio::time::sleep(Duration::from_secs(10)).await;
            })
            .await;
        self.relays_of(server).await
    }

    /// Looks into what was heard, for `time`.
    async fn listens(&self, time: Duration) {
        let shutdown = CancellationToken::new();
        let running = self.records.clone().run(shutdown.clone());
        let ending = async {
            tokio::time::sleep(time).await;
            shutdown.cancel();
        };
        self.site.run(async { tokio::join!(running, ending) }).await;
    }

    fn has_record(&self, whom: &str, json: &Bytes) {
        let page = Reply::Page(200, "application/json", json.clone());
        self.site.exchange.answer(&name(whom), page);
    }

    fn questions(&self, whom: &str) -> usize {
        let targets = self.site.exchange.targets_of(&name(whom));
        let about =
            |target: &&String| target.starts_with("/_matrix/federation/unstable/org.restante");
        targets.iter().filter(about).count()
    }

    async fn has_relay(&self, relay: &str) {
        self.site.relays.add(name(OWN_NAME), name(relay).into()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_newest_valid_record_counts_whoever_gave_it_and_after_a_restart() {
    let node = Node::new().await;
    assert!(node.takes("b.test", record("b.test", &["r2.test", "r1.test"], at(10))).await);
    assert_eq!(node.relays_of("b.test").await, ["r2.test", "r1.test"], "in its order");
    assert!(!node.takes("b.test", record("b.test", &["old.test"], at(9))).await);
    assert!(!node.takes("b.test", record("b.test", &["same.test"], at(10))).await);
    assert!(node.takes("b.test", record("b.test", &["r3.test", "a.test"], at(11))).await);
    assert_eq!(node.relays_of("b.test").await, ["r3.test"], "this server is no relay");

    let Node { site, records } = node;
    drop(records);
    let site = site.restarted().await;
    site.keys.trust(&document("b.test")).await.unwrap();
    let node = Node { records: site.records(), site };
    assert_eq!(node.relays_of("b.test").await, ["r3.test"]);
    assert!(node.takes("b.test", record("b.test", &[], at(12))).await);
    assert_eq!(node.relays_of("b.test").await, Vec::<String>::new(), "it has none any more");
}

#[tokio::test(start_paused = true)]
async fn bad_signatures_others_records_and_versions_from_the_future_change_nothing() {
    let node = Node::new().await;
    let good = record("b.test", &["r.test"], at(10));
    let altered = String::from_utf8(good.to_vec()).unwrap().replace("r.test", "x.test");
    let day = 24 * 3600;
    for bad in [
        record_by("evil.test", "b.test", &["x.test"], at(20)),
        record("c.test", &["x.test"], at(20)),
        record("b.test", &["x.test"], at(day + 60)),
        altered.into(),
        Bytes::from_static(b"{}"),
        Bytes::from_static(b"<html>"),
        Bytes::from(vec![b' '; 20 * 1024]),
    ] {
        assert!(!node.takes("b.test", bad).await);
    }
    assert_eq!(node.learned_from("b.test").await, None);
    assert!(node.takes("b.test", good).await);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_nobody_believes_makes_no_record_count_until_it_is_believed() {
    let node = Node::new().await;
    let stranger = record("c.test", &["r.test"], at(10));
    assert!(!node.takes("c.test", stranger.clone()).await);
    assert_eq!(node.relays_of("c.test").await, Vec::<String>::new());
    node.site.keys.trust(&document("c.test")).await.unwrap();
    assert!(node.takes("c.test", stranger).await);
    assert_eq!(node.relays_of("c.test").await, ["r.test"]);
}

#[tokio::test(start_paused = true)]
async fn where_the_operator_has_spoken_no_record_counts() {
    let node = Node::new().await;
    let b = name("b.test");
    assert!(node.takes("b.test", record("b.test", &["r.test"], at(10))).await);
    node.site.relays.add(b.clone(), name("mine.test").into()).await.unwrap();
    assert_eq!(node.relays_of("b.test").await, ["mine.test"]);
    node.site.relays.remove(&b, &name("mine.test")).await.unwrap();
    assert_eq!(node.relays_of("b.test").await, ["r.test"]);
    node.site.relays.configure([(b, Vec::new())].into()).await.unwrap();
    assert_eq!(node.relays_of("b.test").await, Vec::<String>::new(), "none, says the operator");
}

#[tokio::test(start_paused = true)]
async fn what_a_record_says_of_a_relays_place_is_a_strangers_word() {
    let node = Node::new().await;
    let relay = |name_of: &str, url: &str, priority| RecordedRelay {
        server_name: name(name_of),
        url: Some(url.to_owned()),
        priority,
    };
    let record = RelayRecord {
        server_name: name("b.test"),
        relays: vec![
            relay("second.test", "http://127.0.0.1:1", 2),
            relay("bad.test", "ftp://127.0.0.1", 0),
            relay("first.test", "https://r.test", 1),
            relay("first.test", "https://again.test", 3),
        ],
        version: at(1),
    };
    assert!(node.takes("b.test", record.signed(&identity("b.test").key).into()).await);
    let relays = node.site.relays.holding(&name("b.test")).await.unwrap();
    let stranger =
        |name_of: &str, url: &str| Peer::of_stranger(name(name_of), Some(url.parse().unwrap()));
    let expected =
        [stranger("first.test", "https://r.test"), stranger("second.test", "http://127.0.0.1:1")];
    assert_eq!(relays, expected);
}

#[tokio::test(start_paused = true)]
async fn a_search_asks_the_web_site_and_our_relays_and_its_answer_is_good_for_a_day() {
    let node = Node::new().await;
    node.has_relay("ours.test").await;
    node.site.exchange.answer(&name("ours.test"), Reply::Json(404, NOT_KNOWN));
    node.site.exchange.has_web_file(&name("b.test"), &record("b.test", &["r.test"], at(1)));
    assert_eq!(node.finds("b.test").await, ["r.test"]);
    assert_eq!(node.learned_from("b.test").await, Some(LearnedFrom::WellKnown));
    assert_eq!(node.questions("ours.test"), 1);

    node.site.exchange.has_web_file(&name("b.test"), &record("b.test", &["s.test"], at(2)));
    node.site.clock.advance(Duration::from_secs(23 * 3600));
    assert_eq!(node.refreshes("b.test").await, ["r.test"]);
    node.site.clock.advance(Duration::from_secs(3600));
    assert_eq!(node.refreshes("b.test").await, ["s.test"]);
    assert_eq!(node.site.exchange.web_asked().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_names_nobody_or_was_lost_is_no_answer_for_a_day() {
    let node = Node::new().await;
    let b = name("b.test");
    let web_site = |relays, version| {
        node.site.exchange.has_web_file(&b, &record("b.test", relays, at(version)));
        node.site.clock.advance(Duration::from_secs(120));
    };
    web_site(&["r.test"], 1);
    assert_eq!(node.finds("b.test").await, ["r.test"]);
    let forget = |connection: &restante_sqlite::rusqlite::Connection| {
        connection.execute("DELETE FROM relay_records", [])
    };
    node.site.database.write(forget).await.unwrap();
    node.site.clock.advance(Duration::from_secs(120));
    assert_eq!(node.finds("b.test").await, ["r.test"], "the row had gone");
    web_site(&[], 2);
    assert_eq!(node.finds("b.test").await, Vec::<String>::new());
    web_site(&["s.test"], 3);
    assert_eq!(node.finds("b.test").await, ["s.test"], "it has one again");
}

#[tokio::test(start_paused = true)]
async fn a_relay_whose_record_takes_long_to_check_keeps_no_other_source_waiting() {
    let node = Node::new().await;
    node.has_relay("liar.test").await;
    node.has_relay("ours.test").await;
    node.has_record("liar.test", &with_unknown_key("b.test"));
    node.site.exchange.answer(&name("b.test"), Reply::HangsAtAnswer);
    node.has_record("ours.test", &record("b.test", &["r.test"], at(1)));
    let found = async {
        let begun = tokio::time::Instant::now();
        node.records.find(&name("b.test"), Duration::from_secs(6)).await;
        begun.elapsed()
    };
    let elapsed = node.site.run(found).await;
    assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
    assert_eq!(node.relays_of("b.test").await, ["r.test"]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_came_with_mail_waits_neither_for_meetings_nor_for_slow_servers_records() {
    let node = Node::new().await;
    for n in 0..hearsay::WAITING_MAX {
        let tarpit = format!("s{n}.test");
        node.site.exchange.answer(&name(&tarpit), Reply::HangsAtAnswer);
        node.site.hearsay.met(&name(&tarpit), hearsay::Meeting::Answered);
    }
    for n in 0..8 {
        let tarpit = format!("s{n}.test");
        node.site.hearsay.brought(&name(&tarpit), &with_unknown_key(&tarpit));
    }
    node.site.hearsay.brought(&name("b.test"), &record("b.test", &["r.test"], at(1)));
    node.listens(Duration::from_secs(12)).await;
    assert_eq!(node.learned_from("b.test").await, Some(LearnedFrom::Mail));
}

#[tokio::test(start_paused = true)]
async fn a_relay_of_ours_passes_a_record_on_and_can_not_make_one_up() {
    let node = Node::new().await;
    node.has_relay("ours.test").await;
    node.has_relay("liar.test").await;
    node.has_record("liar.test", &record_by("liar.test", "b.test", &["liar.test"], at(99)));
    node.has_record("ours.test", &record("b.test", &["r.test"], at(1)));
    assert_eq!(node.finds("b.test").await, ["r.test"]);
    let relay = LearnedFrom::Relay(name("ours.test"));
    assert_eq!(node.learned_from("b.test").await, Some(relay));
    let target = relays_target(&name("b.test"));
    assert_eq!(node.site.exchange.targets_of(&name("ours.test")), [target.as_str()]);
}

#[tokio::test(start_paused = true)]
async fn a_search_in_vain_is_not_begun_again_at_once_and_never_twice_at_the_same_time() {
    let node = Node::new().await;
    node.has_relay("slow.test").await;
    node.site.exchange.answer(&name("slow.test"), Reply::HangsAtAnswer);
    let b = name("b.test");
    let searches = async {
        let wait = Duration::from_secs(60);
        tokio::join!(node.records.find(&b, wait), node.records.find(&b, Duration::from_secs(1)));
        node.records.find(&b, wait).await;
    };
    node.site.run(searches).await;
    assert_eq!((node.questions("slow.test"), node.site.exchange.web_asked().len()), (1, 1));
    node.site.clock.advance(Duration::from_secs(120));
    node.finds("b.test").await;
    assert_eq!(node.questions("slow.test"), 2);
}

#[tokio::test(start_paused = true)]
async fn who_is_met_is_asked_once_for_its_relays_and_told_apart_from_who_has_none() {
    let node = Node::new().await;
    node.site.keys.trust(&document("c.test")).await.unwrap();
    node.has_record("b.test", &record("b.test", &["r.test"], at(1)));
    node.site.exchange.answer(&name("c.test"), Reply::Json(404, r#"{"errcode":"M_UNRECOGNIZED"}"#));
    for _ in 0..3 {
        for met in ["b.test", "c.test", "d.test", OWN_NAME] {
            node.site.hearsay.met(&name(met), hearsay::Meeting::Answered);
        }
        node.listens(Duration::from_secs(20)).await;
        node.site.clock.advance(Duration::from_secs(3600));
    }
    assert_eq!(node.relays_of("b.test").await, ["r.test"]);
    assert_eq!(node.learned_from("b.test").await, Some(LearnedFrom::Server));
    let asked = ["b.test", "c.test", "d.test", OWN_NAME].map(|whom| node.questions(whom));
    assert_eq!(asked, [1, 1, 3, 0], "only who did not answer is asked again within the day");
}

#[tokio::test(start_paused = true)]
async fn who_is_met_is_not_asked_where_the_operator_has_spoken() {
    let node = Node::new().await;
    node.site.relays.add(name("b.test"), name("mine.test").into()).await.unwrap();
    node.site.hearsay.met(&name("b.test"), hearsay::Meeting::Answered);
    node.listens(Duration::from_secs(5)).await;
    assert_eq!(node.questions("b.test"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_looks_nothing_up_asks_nobody_and_knows_what_came_with_mail() {
    let node = Node::new().await;
    let settings = RecordsSection { look_up: false, ..RecordsSection::default() };
    let background = node.site.background.clone();
    let records = RelayRecords::new(node.site.site.clone(), &settings, background);
    let node = Node { records, site: node.site };
    node.has_relay("ours.test").await;
    node.site.hearsay.met(&name("b.test"), hearsay::Meeting::Answered);
    node.finds("b.test").await;
    node.site.hearsay.brought(&name("b.test"), &record("b.test", &["r.test"], at(1)));
    node.listens(Duration::from_secs(5)).await;
    assert!(node.site.exchange.seen().is_empty() && node.site.exchange.web_asked().is_empty());
    assert_eq!(node.learned_from("b.test").await, Some(LearnedFrom::Mail));
}

#[tokio::test(start_paused = true)]
async fn whatever_is_heard_costs_who_tells_it_nothing_and_a_bounded_amount_of_memory() {
    let node = Node::new().await;
    let hearsay = &node.site.hearsay;
    for n in 0..10_000 {
        hearsay.met(&name(&format!("s{n}.test")), hearsay::Meeting::Answered);
        hearsay.brought(&name("b.test"), &record("b.test", &["r.test"], at(n)));
    }
    // tokio interrupts whoever receives much at once, which must not look like the end.
    let met = || tokio::task::unconstrained(hearsay.next_met()).now_or_never().flatten();
    let brought = || tokio::task::unconstrained(hearsay.next_brought()).now_or_never().flatten();
    assert_eq!(std::iter::from_fn(met).count(), hearsay::WAITING_MAX);
    assert_eq!(std::iter::from_fn(brought).count(), hearsay::WAITING_OF_ONE_MAX);
    for n in 0..1_000 {
        hearsay.brought(&name(&format!("s{n}.test")), &record("b.test", &[], at(1)));
    }
    assert_eq!(std::iter::from_fn(brought).count(), hearsay::WAITING_MAX);
    hearsay.brought(&name("b.test"), &vec![b' '; RECORD_BYTES_MAX + 1].into());
    assert!(brought().is_none(), "it is no record");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_mail_brought_before_its_key_was_believed_counts_when_it_comes_again() {
    let node = Node::new().await;
    let json = record("c.test", &["r.test"], at(1));
    node.site.hearsay.brought(&name("c.test"), &json);
    node.listens(Duration::from_secs(5)).await;
    assert_eq!(node.learned_from("c.test").await, None);
    node.site.keys.trust(&document("c.test")).await.unwrap();
    node.site.hearsay.brought(&name("c.test"), &json);
    node.listens(Duration::from_secs(5)).await;
    assert_eq!(node.learned_from("c.test").await, Some(LearnedFrom::Mail));
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_the_operator_knows_is_where_the_operator_says() {
    let node = Node::new().await;
    let place = Some("http://10.0.0.7:8090".parse().unwrap());
    let ours = Peer::new(name("r.test"), place);
    node.site.relays.add(name(OWN_NAME), ours.clone()).await.unwrap();
    assert!(node.takes("b.test", record("b.test", &["r.test", "s.test"], at(1))).await);
    let relays = node.site.relays.holding(&name("b.test")).await.unwrap();
    assert_eq!(relays, [ours, Peer::of_stranger(name("s.test"), None)]);
}
