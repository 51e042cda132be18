//! What becomes of mail between its arrival and its confirmation, with a homeserver in memory.

mod backlog;
mod receipts;
mod unproven;

use std::time::Duration;

use restante_relay_api::{RecordedRelay, RelayRecord};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::store::backlog::parked::{self, ParkedRow};
use crate::test_inbound::{InboundSite, Manner, RELAY, ROOM, Writer, distinct, status_when};
use crate::test_site::{BEGINNING, OWN_NAME, identity, name};

#[tokio::test(start_paused = true)]
async fn mail_of_a_server_that_is_offline_is_delivered_in_order_and_confirmed() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let mut letters: Vec<_> = (0..3).map(|_| writer.message(ROOM)).collect();
    letters.reverse();
    site.hold(&letters);

    let status = site.run_until(|status| status.confirmed_total == 3).await;
    assert!(status.waiting.is_empty(), "{status:#?}");
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
    assert_eq!(site.homeserver.transactions(), ["t1", "t2", "t3"]);
    assert_eq!(site.relays.left(RELAY), 0);
}

#[tokio::test(start_paused = true)]
async fn three_hundred_messages_of_one_room_all_arrive_in_order() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.hold(&(0..300).map(|_| writer.message(ROOM)).collect::<Vec<_>>());

    site.run_until(|status| status.confirmed_total == 300).await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
    assert!(site.homeserver.most_staged() <= 40);
}

#[tokio::test(start_paused = true)]
async fn a_room_that_is_not_ready_waits_visibly_until_its_gap_is_closed() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let first = writer.message(ROOM);
    let missing = writer.written[0].clone();
    site.hold(&[writer.message(ROOM)]);

    let waits = |status: &InboxStatus| {
        let reason = status.waiting.first().and_then(|waiting| waiting.reason.clone());
        reason.is_some_and(|reason| reason.contains(ROOM) && reason.contains(&missing))
    };
    site.relays.set("away.test", Manner::Hangs);
    site.node.site.relays.add(name(OWN_NAME), name("away.test").into()).await.unwrap();
    site.run_with(async |inbox| {
        status_when(&inbox, waits).await;
        assert!(site.homeserver.transactions().is_empty());
        site.hold(&[first]);
        status_when(&inbox, |status| status.confirmed_total == 2).await
    })
    .await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn one_origin_that_waits_does_not_stop_another() {
    let site = InboundSite::with_room().await;
    site.homeserver.joins("!other", "$start");
    let (mut stuck, mut free) = (Writer::new("b.test"), Writer::new("c.test"));
    site.knows(&stuck).await;
    site.knows(&free).await;
    stuck.message(ROOM);
    site.hold(&[stuck.message(ROOM), free.message("!other"), free.message("!other")]);

    let status = site.run_until(|status| status.confirmed_total == 3).await;
    assert_eq!(site.homeserver.stored("!other"), free.written);
    assert_eq!(status.backlog[0].room_id, ROOM);
}

#[tokio::test(start_paused = true)]
async fn an_envelope_that_the_disk_altered_is_parked_and_the_rest_flows() {
    let site = InboundSite::with_room().await;
    site.homeserver.joins("!other", "$start");
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.homeserver.is_down(true);
    site.hold(&[writer.message(ROOM), writer.message("!other")]);

    site.run_with(async |inbox| {
        status_when(&inbox, |status| status.waiting.len() == 2).await;
    })
    .await;
    // While nothing runs that could have read it before.
    let alter =
        "UPDATE inbox SET content = CAST(replace(content, 'm.', 'n.') AS BLOB) WHERE txn_id = 't1'";
    let altered = site.node.site.database.write(|connection| connection.execute(alter, [])).await;
    assert_eq!(altered.unwrap(), 1);
    site.homeserver.is_down(false);
    let ended = |status: &InboxStatus| (status.confirmed_total, status.parked_total) == (1, 1);
    site.run_with(async |inbox| status_when(&inbox, ended).await).await;
    assert_eq!(site.homeserver.transactions(), ["t2"]);
    let reason = "SELECT reason FROM inbox WHERE state = 'parked'";
    let reason = |connection: &rusqlite::Connection| {
        connection.query_row(reason, [], |row| row.get::<_, String>(0))
    };
    let reason = site.node.site.database.read(reason).await.unwrap();
    assert!(reason.contains("altered on this node's disk"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_room_that_the_homeserver_is_not_in_holds_nothing_up() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.hold(&[writer.message("!elsewhere"), writer.message(ROOM)]);
    site.run_until(|status| status.confirmed_total == 2).await;
    assert_eq!(site.homeserver.stored(ROOM).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_without_events_is_confirmed_by_the_homeservers_answer() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.hold(&[writer.edu()]);
    site.run_until(|status| status.confirmed_total == 1).await;
    assert_eq!(site.homeserver.edus(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_homeserver_that_can_not_take_mail_now_gets_it_later() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let limited = r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":700}"#;
    site.homeserver.answer_next(&[(401, "{}"), (429, limited), (500, ""), (502, "<html>")]);
    site.hold(&[writer.message(ROOM)]);
    site.run_until(|status| status.confirmed_total == 1).await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn what_the_homeserver_refuses_for_good_is_parked_with_its_words_and_the_rest_goes_on() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.homeserver.answer_next(&[(403, r#"{"errcode":"M_FORBIDDEN","error":"no such luck"}"#)]);
    site.hold(&[writer.edu(), writer.message(ROOM)]);
    let status = site.run_until(|status| status.confirmed_total == 1).await;
    let parked = &status.waiting[0];
    assert_eq!((parked.state, status.parked_total), ("parked", 1));
    assert!(parked.reason.as_ref().unwrap().contains("no such luck"));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_the_homeserver_took_and_dropped_is_delivered_again_and_parked_at_last() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let letters = [writer.message(ROOM), writer.message(ROOM)];
    site.homeserver.drops(&writer.written[0], 2);
    site.hold(&letters);
    site.run_until(|status| status.confirmed_total == 2 && status.backlog.is_empty()).await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);

    site.hold(&[writer.message(ROOM)]);
    site.homeserver.drops(&writer.written[2], 1000);
    site.run_with(async |inbox| {
        while inbox.status().await.unwrap().events_parked_total == 0 {
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    })
    .await;
    assert!(parked_events(&site).await[0].reason.contains("did not store it, 6 times"));
}

#[tokio::test(start_paused = true)]
async fn what_the_homeserver_dropped_and_can_not_be_set_aside_is_not_confirmed() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let letter = writer.message(ROOM);
    site.homeserver.drops(&writer.written[0], 1);
    site.node
        .run_sql(
            "CREATE TRIGGER full BEFORE INSERT ON backlog BEGIN SELECT RAISE(ABORT, 'full'); END",
        )
        .await;
    site.hold(&[letter]);
    site.run_with(async |inbox| {
        tokio::time::sleep(Duration::from_secs(600)).await;
        let status = inbox.status().await.unwrap();
        assert_eq!((status.confirmed_total, status.waiting.len()), (0, 1));
        site.node.run_sql("DROP TRIGGER full").await;
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(inbox.status().await.unwrap().confirmed_total, 1);
    })
    .await;
    site.run_until(|status| status.backlog.is_empty()).await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_the_homeserver_refuses_is_parked_with_its_words() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let letter = writer.message(ROOM);
    let refusal = format!(r#"{{"pdus":{{"{}":{{"error":"denied by ACL"}}}}}}"#, writer.written[0]);
    site.homeserver.answer_next(&[(200, refusal.leak())]);
    site.hold(&[letter]);
    site.run_until(|status| status.events_parked_total == 1).await;
    assert!(parked_events(&site).await[0].reason.contains("denied by ACL"));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_may_be_refused_for_want_of_its_senders_key_is_delivered_again() {
    let site = InboundSite::with_room().await;
    let (mut writer, mut unknown) = (Writer::new("b.test"), Writer::new("c.test"));
    site.knows(&writer).await;
    let letter = writer.letter(&[unknown.draft(ROOM)], &[]);
    let refusal = format!(r#"{{"pdus":{{"{}":{{"error":"no key"}}}}}}"#, unknown.written[0]);
    site.homeserver.answer_next(&[(200, refusal.leak())]);
    site.hold(&[letter]);
    let status = site.run_until(|_| site.homeserver.stored(ROOM).len() == 1).await;
    assert_eq!(status.events_parked_total, 0);
    assert_eq!(site.homeserver.own_transactions(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_before_a_restart_is_confirmed_after_it() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.hold(&(0..5).map(|_| writer.message(ROOM)).collect::<Vec<_>>());
    site.run_until(|status| status.counts.get("delivered_unconfirmed") > Some(&0)).await;
    let site = site.restarted().await;
    site.run_until(|status| status.confirmed_total == 5).await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn mail_that_was_never_answered_is_delivered_again_after_a_restart() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.homeserver.answer_next(&[(504, ""); 3]);
    site.hold(&[writer.message(ROOM)]);
    site.run_with(async |inbox| {
        status_when(&inbox, |_| !site.homeserver.transactions().is_empty()).await;
    })
    .await;
    let site = site.restarted().await;
    site.run_until(|status| status.confirmed_total == 1).await;
    assert_eq!(distinct(&site.homeserver.transactions()), 1);
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn mail_that_is_too_old_is_parked() {
    let site = InboundSite::with_room().await;
    let day = Duration::from_secs(24 * 3600);
    let mut old = Writer::new("b.test").signs_at(BEGINNING.before(31 * day));
    site.knows(&old).await;
    site.hold(&[old.message(ROOM)]);
    let status = site.run_until(|status| status.parked_total == 1).await;
    assert!(status.waiting[0].reason.as_ref().unwrap().contains("longer ago"));
    assert!(site.homeserver.transactions().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_defect_that_one_delivery_meets_stops_neither_it_nor_the_others_for_ever() {
    let site = InboundSite::with_room().await;
    let (mut writer, mut other) = (Writer::new("b.test"), Writer::new("c.test"));
    site.knows(&writer).await;
    site.knows(&other).await;
    site.homeserver.panic_next(2);
    site.hold(&[writer.message(ROOM), other.edu()]);
    site.run_until(|status| status.confirmed_total == 2).await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

async fn parked_events(site: &InboundSite) -> Vec<ParkedRow> {
    parked::parked(&site.node.site.database, None, 100).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn mail_of_a_server_that_is_offline_tells_where_answers_to_it_can_be_left() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let relay = RecordedRelay { server_name: name("of-b.test"), url: None, priority: 0 };
    let record =
        RelayRecord { server_name: name("b.test"), relays: vec![relay], version: BEGINNING };
    let signed = record.signed(&identity("b.test").key);
    let forged = record.signed(&identity("evil.test").key);
    site.hold(&[
        writer.message(ROOM).with_record(&forged),
        writer.message(ROOM).with_record(&signed),
        writer.message(ROOM).with_record(b"[]"),
    ]);
    site.run_until(|status| status.confirmed_total == 3).await;

    let node = &site.node;
    let (records, stop) = (node.records(), CancellationToken::new());
    let listening = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        stop.cancel();
    };
    node.run(async { tokio::join!(records.run(stop.clone()), listening) }).await;
    let relays = node.site.relays.holding(&name("b.test")).await.unwrap();
    let names: Vec<_> = relays.iter().map(|relay| relay.name.as_str()).collect();
    assert_eq!(names, ["of-b.test"]);
}
