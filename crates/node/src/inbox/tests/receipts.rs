//! What origins are told of their mail, and what they tell of ours.

use restante_federation_proto::ServerName;
use restante_relay_api::{ConfirmedDelivery, ConfirmedOutcome, DeliveryReceipt, hex};
use serde_json::json;

use super::*;
use crate::outbox::KeptCopy;
use crate::store::ledger::{Ledger, Transaction};
use crate::store::outbox::{self, Kept, Word};
use crate::store::receipts_due;

async fn due(site: &InboundSite, origin: &str) -> DeliveryReceipt {
    receipts_due::batch(&site.node.database, name(origin)).await.unwrap().receipt
}

#[tokio::test(start_paused = true)]
async fn mail_that_ended_is_confirmed_to_its_origin_with_each_event_and_who_brought_it() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let pdus = [writer.draft(ROOM), writer.draft(ROOM)];
    let letter = writer.letter(&pdus, &[]);
    site.hold(&[letter.clone(), writer.edu()]);
    site.run_until(|status| status.confirmed_total == 2).await;

    let receipt = due(&site, "b.test").await;
    let [edu, message] = receipt.deliveries.as_slice() else { panic!("{receipt:?}") };
    assert_eq!((edu.txn_id.as_str(), message.txn_id.as_str()), ("t2", "t1"));
    assert_eq!(message.content_sha256, letter.envelope.sha256);
    assert_eq!(message.outcome, ConfirmedOutcome::Delivered);
    assert_eq!(message.relay, Some(name(RELAY)));
    let ids: Vec<_> = message.pdus.keys().cloned().collect();
    let mut written = writer.written.clone();
    written.sort();
    assert_eq!(ids, written);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_parked_is_told_as_not_taken() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let pdus = [writer.draft(ROOM), writer.draft(ROOM)];
    let refused = writer.written[1].clone();
    let answer = json!({ "pdus": { &refused: { "error": "not allowed" } } }).to_string();
    site.homeserver.answer_next(&[(200, answer.leak())]);
    site.homeserver.gets(ROOM, &writer.written[0]);
    site.hold(&[writer.letter(&pdus, &[])]);
    site.run_until(|status| status.confirmed_total == 1).await;

    let delivery = due(&site, "b.test").await.deliveries.remove(0);
    assert_eq!(delivery.outcome, ConfirmedOutcome::Parked);
    let error = delivery.pdus[&refused].error.as_ref().unwrap();
    assert!(error.contains("not allowed"), "{error}");
    assert_eq!(delivery.pdus[&writer.written[0]].error, None);
}

/// What b.test is told now, and no more.
async fn told(site: &InboundSite) -> Vec<ConfirmedDelivery> {
    let batch = receipts_due::batch(&site.node.database, name("b.test")).await.unwrap();
    let told = batch.receipt.deliveries.clone();
    receipts_due::sent(&site.node.database, batch).await.unwrap();
    told
}

#[tokio::test(start_paused = true)]
async fn events_that_wait_are_told_as_waiting_and_as_delivered_once_their_gap_has_closed() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let first = writer.message(ROOM);
    let late = writer.message(ROOM);
    site.hold(std::slice::from_ref(&late));
    site.run_with(async |inbox| {
        status_when(&inbox, |status| status.confirmed_total == 1).await;
        let [waiting] = &told(&site).await[..] else { panic!("one") };
        assert_eq!(waiting.outcome, ConfirmedOutcome::Waiting);
        assert!(waiting.pdus[&writer.written[1]].waits);
        site.hold(&[first]);
        status_when(&inbox, |status| status.backlog.is_empty()).await;
    })
    .await;
    let told = told(&site).await;
    let [first, second] = &told[..] else { panic!("{told:?}") };
    assert_eq!((first.txn_id.as_str(), second.txn_id.as_str()), ("t1", "t2"));
    assert_eq!(second.outcome, ConfirmedOutcome::Delivered);
    assert_eq!(second.content_sha256, late.envelope.sha256);
    assert_eq!(second.relay, Some(name(RELAY)));
    assert!(!second.pdus[&writer.written[1]].waits);
}

#[tokio::test(start_paused = true)]
async fn events_that_waited_in_vain_are_told_as_parked_and_so_again_though_they_are_dropped() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    writer.message(ROOM);
    let letter = writer.message(ROOM);
    site.hold(std::slice::from_ref(&letter));
    site.run_until(|status| !status.backlog.is_empty() && status.confirmed_total == 1).await;
    assert_eq!(told(&site).await[0].outcome, ConfirmedOutcome::Waiting);
    let comes_again = async |site: &InboundSite| {
        site.node.clock.advance(Duration::from_secs(3600));
        site.relays.hold(RELAY, &letter);
        site.run_with(async |inbox| {
            status_when(&inbox, |_| site.relays.left(RELAY) == 0).await;
        })
        .await;
    };
    comes_again(&site).await;
    assert_eq!(told(&site).await[0].outcome, ConfirmedOutcome::Waiting);

    site.node.clock.advance(Duration::from_secs(31 * 24 * 3600));
    let site = site.restarted().await;
    site.run_with(async |inbox| {
        status_when(&inbox, |status| status.events_parked_total == 1).await;
        let id = ParkedId::from(&inbox.parked(10).await.unwrap()[0]);
        assert!(inbox.drop_parked(id).await.unwrap());
    })
    .await;
    let parked = told(&site).await.remove(0);
    assert_eq!(parked.outcome, ConfirmedOutcome::Parked);
    let error = parked.pdus[&writer.written[1]].error.as_ref().unwrap();
    assert!(error.contains("never came"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn mail_that_was_parked_and_dropped_is_not_told_as_delivered_when_it_comes_again() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let letter = writer.edu();
    site.homeserver.answer_next(&[(400, r#"{"errcode":"M_UNKNOWN","error":"no"}"#)]);
    site.hold(std::slice::from_ref(&letter));
    site.run_with(async |inbox| {
        status_when(&inbox, |status| status.parked_total == 1).await;
        let id = ParkedId::from(&inbox.parked(10).await.unwrap()[0]);
        assert!(inbox.drop_parked(id).await.unwrap());
    })
    .await;
    assert_eq!(told(&site).await[0].outcome, ConfirmedOutcome::Parked);
    site.node.clock.advance(Duration::from_secs(3600));
    site.relays.hold(RELAY, &letter);
    site.run_with(async |inbox| {
        status_when(&inbox, |_| site.relays.left(RELAY) == 0).await;
    })
    .await;
    assert_eq!(told(&site).await[0].outcome, ConfirmedOutcome::Parked);
}

#[tokio::test(start_paused = true)]
async fn whoever_has_no_node_is_told_nothing() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.hold(&[writer.message(ROOM).without_proof()]);
    site.run_with(async |inbox| {
        status_when(&inbox, |status| status.confirmed_total + status.parked_total == 1).await;
    })
    .await;
    assert_eq!(due(&site, "b.test").await, DeliveryReceipt::default());
}

#[tokio::test(start_paused = true)]
async fn mail_that_comes_again_is_confirmed_again_but_not_each_relays_copy_of_it() {
    let site = InboundSite::new(&[RELAY, "other.test"]).await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let letter = writer.edu();
    site.hold(std::slice::from_ref(&letter));
    site.run_until(|status| status.confirmed_total == 1).await;
    assert_eq!(told(&site).await.len(), 1);
    let again = async |relay: &str| {
        site.relays.hold(relay, &letter);
        site.run_with(async |inbox| {
            status_when(&inbox, |_| site.relays.left(relay) == 0).await;
        })
        .await;
    };
    again("other.test").await;
    assert_eq!(told(&site).await.len(), 0, "the copy at another relay");
    site.node.clock.advance(Duration::from_secs(3600));
    again(RELAY).await;
    assert_eq!(told(&site).await.len(), 1, "its origin has not heard");
}

/// A line of mail for b.test, left with a relay; its hash.
async fn left(site: &InboundSite) -> [u8; 32] {
    let database = site.node.database.clone();
    let ledger = Ledger::open(database, "stream".to_owned()).await.unwrap();
    let content_sha256 = [7; 32];
    let transaction =
        Transaction { destination: name("b.test"), txn_id: "1".to_owned(), content_sha256 };
    ledger.enter(transaction, BEGINNING).await.unwrap();
    let copy = KeptCopy::of(("/send/1", "X-Matrix"), b"{}", None).unwrap();
    let kept = Kept { copy, bytes_max: 1000, word: Word::Counts };
    let line = (name("b.test"), 1);
    ledger.held_by(line, name(RELAY), Some(kept), BEGINNING).await.unwrap();
    content_sha256
}

fn receipt(sha256: [u8; 32]) -> serde_json::Value {
    let delivery = ConfirmedDelivery {
        txn_id: "1".to_owned(),
        content_sha256: hex(&sha256),
        outcome: ConfirmedOutcome::Delivered,
        relay: None,
        at: BEGINNING,
        pdus: Default::default(),
    };
    let receipt = DeliveryReceipt { deliveries: vec![delivery], missing: vec![] };
    json!({ "edu_type": "org.restante.delivery_receipt", "content": receipt })
}

async fn copies(site: &InboundSite) -> usize {
    let waiting = outbox::waiting(&site.node.database, BEGINNING).await.unwrap();
    let of_b = |one: &&outbox::Waiting| one.destination == "b.test".parse::<ServerName>().unwrap();
    waiting.iter().filter(of_b).count()
}

#[tokio::test(start_paused = true)]
async fn a_receipt_that_a_relay_gives_is_the_nodes_own_and_counts_once_its_sender_is_believed() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    let sha256 = left(&site).await;
    let letter = writer.letter(&[], &[receipt(sha256)]);
    let mut impostor = Writer::impostor("b.test");
    site.hold(&[letter.without_proof(), impostor.letter(&[], &[receipt(sha256)]), letter]);
    site.run_with(async |inbox| {
        status_when(&inbox, |_| site.relays.left(RELAY) == 0).await;
        assert_eq!(copies(&site).await, 1, "nobody's key is believed yet");
        site.knows(&writer).await;
        inbox.judge_soon(&name("b.test"));
        status_when(&inbox, |status| !status.counts.contains_key("unverified_first_contact")).await;
        assert_eq!(copies(&site).await, 0);
    })
    .await;
    assert_eq!(site.homeserver.transactions(), Vec::<String>::new());
    assert_eq!(due(&site, "b.test").await, DeliveryReceipt::default(), "no receipt for receipts");
}
