//! Relays and recipients that misbehave, fail or move.

use super::*;
use crate::delivery::Releft;
use crate::outbox::rule::HolderStep;
use crate::store::ledger::{Ledger, Transaction};
use crate::store::outbox::audit::{self, ToAsk};
use crate::store::outbox::{Kept, Word};

const GONE: Reply = Reply::Json(200, r#"{"states":["gone"]}"#);
const REFUSED: Reply = Reply::Json(401, r#"{"errcode":"M_UNAUTHORIZED","error":"no key"}"#);
const FAILED: Reply = Reply::Json(500, r#"{"errcode":"M_UNKNOWN","error":"it crashes"}"#);

fn states(state: &str, count: usize) -> Reply {
    let states = vec![format!("\"{state}\""); count].join(",");
    Reply::Page(200, "application/json", format!(r#"{{"states":[{states}]}}"#).into())
}

async fn name_relay(node: &Node, relay: &str) {
    node.site.relays.add(node.b.clone(), Peer::from(name(relay))).await.unwrap();
}

/// r1.test loses what it takes until its word does not count.
async fn with_a_distrusted_relay() -> Node {
    let node = Node::with_relays(&["r1.test"]).await;
    node.answers("r1.test", [TAKEN, LOST, TAKEN, LOST, TAKEN, LOST, TAKEN, HELD]);
    assert_eq!(node.send("1").await.0, 200);
    for _ in 0..10 {
        node.work(4).await;
    }
    assert_eq!(trust_store::all(&node.site.database).await.unwrap().len(), 1);
    node.b_tells(confirmed("1", None)).await;
    assert_eq!(node.total("copies").await, 0);
    node
}

/// Copies for `destination`, each of `bytes`, left with r1.test.
async fn keep(node: &Node, destination: &str, count: u8, (bytes, bytes_max): (usize, u64)) {
    let ledger = Ledger::open(node.site.database.clone(), String::new()).await.unwrap();
    for number in 0..count {
        let transaction = Transaction {
            destination: name(destination),
            txn_id: number.to_string(),
            content_sha256: [0; 32],
        };
        let now = node.site.clock.now().after(Duration::from_millis(u64::from(number)));
        let seq = ledger.enter(transaction, now).await.unwrap().place.seq;
        let copy = KeptCopy {
            target: "/send/1".to_owned(),
            authorization: "X-Matrix".to_owned(),
            compressed: vec![0; bytes],
            capsule: None,
            sha256: [0; 32],
        };
        let kept = Some(Kept { copy, bytes_max, word: Word::Counts });
        ledger.held_by((name(destination), seq), name("r1.test"), kept, now).await.unwrap();
    }
}

async fn kept_for(node: &Node, destination: &str) -> u64 {
    let all = overview::destinations(&node.site.database).await.unwrap();
    let of = |one: &&overview::DestinationTotals| one.destination == name(destination);
    all.iter().find(of).map_or(0, |one| one.copies)
}

#[tokio::test(start_paused = true)]
async fn one_receipt_makes_a_bounded_number_of_copies_wanted() {
    let node = Node::with_relays(&[]).await;
    let fill = "WITH RECURSIVE n (seq) AS (VALUES (1) UNION ALL SELECT seq + 1 FROM n WHERE seq < 1500)
                INSERT INTO kept_copies (destination, seq, kept_at, target, authorization, sha256, content)
                SELECT 'b.test', seq, 1, '', '', x'', x'00' FROM n";
    node.site.database.write(move |c| c.execute(fill, []).map(drop)).await.unwrap();
    let stream = "SELECT stream FROM installation";
    let stream = node.site.database.read(|c| c.query_row(stream, [], |row| row.get(0)));
    let missing = MissingNumbers { stream: stream.await.unwrap(), from: 1, through: 99_999_999 };
    let receipt = DeliveryReceipt { deliveries: vec![], missing: vec![missing; 500] };
    let now = node.site.clock.now();
    for expected in [1000, 1500] {
        node.b_tells(receipt.clone()).await;
        let waiting = store::waiting(&node.site.database, now).await.unwrap();
        assert_eq!(waiting[0].wanted, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_word_of_a_relay_that_counts_again_is_not_enough_without_a_copy() {
    let node = with_a_distrusted_relay().await;
    node.answers("r1.test", [TAKEN]);
    assert_eq!(node.send("2").await.0, 502);
    assert_eq!(node.total("copies").await, 1, "kept so that the relay can be asked");
    trust_store::trust(&node.site.database, node.b.clone(), name("r1.test")).await.unwrap();
    node.site.database.write(|c| c.execute("DELETE FROM kept_copies", []).map(drop)).await.unwrap();
    let before = node.targets("r1.test").len();
    assert_eq!(node.send("2").await.0, 200);
    assert_eq!(node.targets("r1.test").len(), before + 1, "it is left once more");
    assert_eq!(node.total("copies").await, 1);
    assert_eq!(node.send("2").await.0, 200);
    assert_eq!(node.targets("r1.test").len(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn a_day_later_a_relays_word_counts_for_one_transaction_and_for_all_once_that_is_kept() {
    let node = with_a_distrusted_relay().await;
    node.answers("r1.test", [TAKEN]);
    assert_eq!(node.send("2").await.0, 502);
    node.b_tells(confirmed("2", None)).await;
    node.site.clock.advance(Duration::from_secs(25 * 3600));
    assert_eq!(node.send("3").await.0, 200);
    assert_eq!(node.send("4").await.0, 502, "one at a time");
    node.answers("r1.test", [states("held", 2), states("held", 2), HELD]);
    node.work(4).await;
    assert_eq!(trust_store::all(&node.site.database).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_refused_copy_lets_others_go_first_and_is_sent_again_later() {
    let node = Node::with_relays(&["r1.test"]).await;
    node.answers("r1.test", [TAKEN, TAKEN, states("held", 2), states("held", 2), HELD]);
    node.send("1").await;
    node.send("2").await;
    let before = node.sends("b.test");
    node.answers("b.test", [REFUSED, TAKEN]);
    node.site.destinations.answered(&node.b).await;
    node.work(100).await;
    let sent: Vec<_> = node.targets("b.test").split_off(before);
    assert!(sent[0].ends_with("/send/1") && sent[1].ends_with("/send/2"), "{sent:?}");
    assert_eq!(node.total("sent_directly").await, 1);
    node.site.clock.advance(Duration::from_secs(3600));
    node.work(30).await;
    assert_eq!(node.total("sent_directly").await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_never_taken_does_not_block_those_behind_it() {
    let node = Node::with_relays(&["r1.test"]).await;
    node.answers("r1.test", [TAKEN, TAKEN, states("held", 2)]);
    node.send("1").await;
    node.send("2").await;
    let before = node.targets("b.test").len();
    // After each failure there is a question whether it answers.
    node.answers("b.test", [FAILED, TAKEN, FAILED, TAKEN, FAILED, TAKEN, TAKEN]);
    node.site.destinations.answered(&node.b).await;
    node.work(1000).await;
    let sent: Vec<_> = node.targets("b.test").split_off(before);
    let sent: Vec<_> = sent.iter().filter_map(|target| target.split_once("/send/")).collect();
    let sent: Vec<_> = sent.iter().map(|(_, txn_id)| *txn_id).collect();
    assert_eq!(sent[..4], ["1", "1", "1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn all_that_a_relay_lost_is_left_again_although_one_transaction_is_refused() {
    let node = Node::with_relays(&["r1.test"]).await;
    node.answers("r1.test", [TAKEN]);
    for number in 0..60 {
        assert_eq!(node.send(&number.to_string()).await.0, 200);
    }
    node.answers("r1.test", [states("unknown", 60), states("held", 59)]);
    node.site.relays.remove(&node.b, &name("r1.test")).await.unwrap();
    name_relay(&node, "r2.test").await;
    let refused = Reply::Json(400, r#"{"errcode":"M_TOO_LARGE","error":"too large"}"#);
    node.answers("r2.test", [TAKEN, TAKEN, refused, TAKEN]);
    node.work(20).await;
    assert_eq!(node.total("left_again").await, 59);
}

#[tokio::test(start_paused = true)]
async fn what_was_signed_with_an_earlier_key_is_left_again() {
    let node = Node::with_relays(&["r1.test"]).await;
    node.answers("r1.test", [TAKEN, LOST, TAKEN, HELD]);
    node.send("1").await;
    let target = "/_matrix/federation/v1/send/1".parse().unwrap();
    let own = name(OWN_NAME);
    let signable = SignableRequest {
        method: "PUT",
        target: &target,
        origin: &own,
        destination: Some(&node.b),
        content: Some(CONTENT.as_bytes()),
    };
    let earlier = signable.sign(&identity("earlier").key).to_string();
    let sql = "UPDATE kept_copies SET authorization = ?1";
    node.site.database.write(move |c| c.execute(sql, [&earlier]).map(drop)).await.unwrap();
    node.work(8).await;
    assert_eq!(node.total("left_again").await, 1);
}

#[tokio::test(start_paused = true)]
async fn what_all_relays_hold_and_its_recipient_misses_is_left_nowhere_and_not_counted() {
    let node = Node::with_relays(&["r1.test"]).await;
    node.answers("r1.test", [TAKEN, HELD]);
    node.send("1").await;
    let sql = "UPDATE kept_copies SET wanted_at = 1";
    node.site.database.write(move |c| c.execute(sql, []).map(drop)).await.unwrap();
    node.work(100).await;
    let now = node.site.clock.now();
    let waiting = store::waiting(&node.site.database, now).await.unwrap();
    assert_eq!((waiting[0].wanted, waiting[0].to_leave), (1, 0));
    assert_eq!(node.total("left_again").await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_lies_at_a_relay_that_its_recipient_names_no_longer_is_left_with_the_new_one() {
    let node = Node::with_relays(&["r1.test"]).await;
    node.answers("r1.test", [TAKEN]);
    node.send("1").await;
    node.site.relays.remove(&node.b, &name("r1.test")).await.unwrap();
    name_relay(&node, "r2.test").await;
    node.answers("r2.test", [TAKEN, HELD]);
    node.work(8).await;
    let line = node.lines().await.remove(0);
    let holders: Vec<_> = line.holders.iter().map(|holder| holder.relay.as_str()).collect();
    assert_eq!(holders, ["r1.test", "r2.test"]);
    assert_eq!(trust_store::all(&node.site.database).await.unwrap(), [], "nobody is blamed");
}

#[tokio::test(start_paused = true)]
async fn what_lies_at_a_relay_that_is_silent_for_hours_is_left_with_another() {
    let mut node = Node::with_relays(&["r1.test"]).await;
    node.settings.audit_interval = Duration::from_secs(600);
    node.answers("r1.test", [TAKEN, Reply::Refused]);
    node.send("1").await;
    name_relay(&node, "r2.test").await;
    node.answers("r2.test", [TAKEN, HELD]);
    let hours_pass = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(node.targets("r2.test").len(), 0, "it may be restarted");
        node.site.clock.advance(Duration::from_secs(7 * 3600));
    };
    let both = async { tokio::join!(node.working(60), hours_pass) };
    node.site.run(both).await;
    assert_eq!(node.lines().await[0].holders.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_borrows_a_relays_name_keeps_nobody_from_asking_the_relay() {
    let node = Node::with_relays(&[]).await;
    let elsewhere = Peer::new(name("r1.test"), Some("https://elsewhere.test".parse().unwrap()));
    node.site.relays.add(node.b.clone(), elsewhere).await.unwrap();
    let c = name("c.test");
    node.site.relays.add(c.clone(), Peer::from(name("r1.test"))).await.unwrap();
    let unknown = Reply::Json(404, r#"{"errcode":"M_UNRECOGNIZED","error":"no"}"#);
    node.answers("r1.test", [TAKEN, TAKEN, unknown, HELD]);
    node.send("1").await;
    let mail = Mail::read(outgoing(&c, "1", CONTENT), &identity(OWN_NAME)).unwrap();
    node.site.run(node.delivery.send(mail)).await;
    node.work(6).await;
    let lines = overview::lines(&node.site.database, c, Which::All, (0, 99)).await.unwrap();
    assert_eq!(lines[0].holders[0].said.as_deref(), Some("held"));
}

#[tokio::test(start_paused = true)]
async fn what_is_once_gone_to_its_recipient_is_not_left_again_when_the_relay_forgets_it() {
    let node = Node::with_relays(&["r1.test"]).await;
    node.answers("r1.test", [TAKEN, GONE, LOST]);
    node.send("1").await;
    node.work(30).await;
    let line = node.lines().await.remove(0);
    assert_eq!(line.holders[0].said.as_deref(), Some("gone"));
    assert_eq!(node.total("left_again").await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_lay_at_a_relay_for_its_time_lies_at_none_again() {
    let node = Node::with_relays(&["r1.test"]).await;
    keep(&node, "b.test", 1, (10, 1000)).await;
    let now = node.site.clock.now();
    let asked = ToAsk {
        destination: node.b.clone(),
        seq: 1,
        txn_id: "0".to_owned(),
        content_sha256: [0; 32],
        since: now,
        expires_at: Some(now),
        missed_at: None,
    };
    let ran_out = vec![(asked, HolderStep::RanOut)];
    audit::answered(&node.site.database, name("r1.test"), ran_out, now).await.unwrap();
    let waiting = store::waiting(&node.site.database, now).await.unwrap().remove(0);
    assert_eq!((waiting.wanted, waiting.to_leave), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_came_meanwhile_is_not_held_against_a_relay() {
    let node = Node::with_relays(&["r1.test"]).await;
    node.answers("r1.test", [TAKEN]);
    node.send("1").await;
    let now = node.site.clock.now();
    let asked = ToAsk {
        destination: node.b.clone(),
        seq: 1,
        txn_id: "1".to_owned(),
        content_sha256: sha256(CONTENT),
        since: node.lines().await[0].holders[0].since,
        expires_at: None,
        missed_at: None,
    };
    node.b_tells(confirmed("1", Some("r1.test"))).await;
    let lost = vec![(asked, HolderStep::Lost(rule::Blame::Relays))];
    let worst = audit::answered(&node.site.database, name("r1.test"), lost, now).await.unwrap();
    assert_eq!(worst, None);
    assert_eq!(node.lines().await[0].holders.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_destination_with_most_copies_makes_room() {
    let node = Node::with_relays(&[]).await;
    keep(&node, "c.test", 2, (10, 60)).await;
    keep(&node, "b.test", 9, (10, 60)).await;
    assert_eq!((kept_for(&node, "c.test").await, kept_for(&node, "b.test").await), (2, 4));
    assert_eq!(store::make_room(&node.site.database, 15).await.unwrap(), 5);
    assert_eq!(node.total("copy_bytes").await, 10);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_again_does_not_keep_new_mail_waiting() {
    let node = Node::with_relays(&["r1.test"]).await;
    node.answers("r1.test", [TAKEN]);
    node.send("1").await;
    name_relay(&node, "r2.test").await;
    node.answers("r2.test", [Reply::HangsAtAnswer]);
    node.answers("b.test", [TAKEN]);
    let content = bytes::Bytes::from_static(CONTENT.as_bytes());
    let outgoing = Outgoing { body: content, ..outgoing(&node.b, "2", CONTENT) };
    let mail = Mail::read(outgoing, &identity(OWN_NAME)).unwrap();
    let took = async {
        let begun = tokio::time::Instant::now();
        node.site.destinations.answered(&node.b).await;
        let response = node.delivery.send(mail).await;
        (response.status().as_u16(), begun.elapsed())
    };
    let both = async { tokio::join!(node.delivery.leave_copy(&node.b, 1), took) };
    let (releft, (status, took)) = node.site.run(both).await;
    assert!(matches!(releft, Releft::InVain(_)), "{releft:?}");
    assert!(status == 200 && took < Duration::from_secs(5), "{status} after {took:?}");
}

/// Mail that r1.test takes and says to hold, and that b.test, which has emptied it, reports missing.
async fn withheld(node: &Node, txn_id: &str) {
    node.answers("r1.test", [TAKEN]);
    assert_eq!(node.send(txn_id).await.0, 200);
    node.site.clock.advance(Duration::from_secs(600));
    let stream = node.site.database.read(|connection| {
        connection.query_row("SELECT stream FROM installation", [], |row| row.get::<_, String>(0))
    });
    let missing = vec![MissingNumbers { stream: stream.await.unwrap(), from: 1, through: 99 }];
    node.b_tells(DeliveryReceipt { deliveries: vec![], missing }).await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_always_says_held_and_hands_nothing_over_is_found_out() {
    let node = Node::with_relays(&["r1.test"]).await;
    for number in 1..=3 {
        withheld(&node, &number.to_string()).await;
        node.site.clock.advance(Duration::from_secs(600));
        let distrusted = trust_store::all(&node.site.database).await.unwrap();
        assert_eq!(distrusted, [], "one incident may be its operator's");
        node.answers("r1.test", [states("held", number)]);
        node.work(4).await;
    }
    let distrusted = trust_store::all(&node.site.database).await.unwrap();
    assert_eq!((distrusted.len(), &distrusted[0].destination), (1, &node.b));
    assert!(distrusted[0].reason.contains("did not get"), "{distrusted:?}");

    // Its own word does not bring its trust back.
    node.site.clock.advance(Duration::from_secs(25 * 3600));
    node.answers("r1.test", [states("held", 3)]);
    node.work(4).await;
    assert_eq!(trust_store::all(&node.site.database).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_relay_hands_over_late_is_not_held_against_it() {
    let node = Node::with_relays(&["r1.test"]).await;
    for number in 1..=3_usize {
        withheld(&node, &number.to_string()).await;
        node.answers("r1.test", [HELD]);
        node.work(4).await;
        node.b_tells(confirmed(&number.to_string(), Some("r1.test"))).await;
    }
    assert_eq!(trust_store::all(&node.site.database).await.unwrap(), []);
}
