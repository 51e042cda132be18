//! What becomes of mail between its arrival and its confirmation, with a homeserver in memory.

mod backlog;

use std::time::Duration;

use super::*;
use crate::test_inbound::{InboundSite, Letter, Manner, Writer, distinct, status_when};
use crate::test_site::{BEGINNING, OWN_NAME, name};

const RELAY: &str = "relay.test";
const ROOM: &str = "!room";

async fn site() -> InboundSite {
    let site = InboundSite::new(&[RELAY]).await;
    site.homeserver.joins(ROOM, "$start");
    site
}

fn hold(site: &InboundSite, letters: &[Letter]) {
    letters.iter().for_each(|letter| site.relays.hold(RELAY, letter));
}

#[tokio::test(start_paused = true)]
async fn mail_of_a_server_that_is_offline_is_delivered_in_order_and_confirmed() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let mut letters: Vec<_> = (0..3).map(|_| writer.message(ROOM)).collect();
    letters.reverse();
    hold(&site, &letters);

    let status = site.run_until(|status| status.confirmed_total == 3).await;
    assert!(status.waiting.is_empty(), "{status:#?}");
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
    assert_eq!(site.homeserver.transactions(), ["t1", "t2", "t3"]);
    assert_eq!(site.relays.left(RELAY), 0);
}

#[tokio::test(start_paused = true)]
async fn three_hundred_messages_of_one_room_all_arrive_in_order() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    hold(&site, &(0..300).map(|_| writer.message(ROOM)).collect::<Vec<_>>());

    site.run_until(|status| status.confirmed_total == 300).await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
    assert!(site.homeserver.most_staged() <= 40);
}

#[tokio::test(start_paused = true)]
async fn a_room_that_is_not_ready_waits_visibly_until_its_gap_is_closed() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let first = writer.message(ROOM);
    let missing = writer.written[0].clone();
    hold(&site, &[writer.message(ROOM)]);

    let waits = |status: &InboxStatus| {
        let reason = status.waiting.first().and_then(|waiting| waiting.reason.clone());
        reason.is_some_and(|reason| reason.contains(ROOM) && reason.contains(&missing))
    };
    site.relays.set("away.test", Manner::Hangs);
    site.node.site.relays.add(name(OWN_NAME), name("away.test").into()).await.unwrap();
    site.run_with(async |inbox| {
        status_when(&inbox, waits).await;
        assert!(site.homeserver.transactions().is_empty());
        hold(&site, &[first]);
        status_when(&inbox, |status| status.confirmed_total == 2).await
    })
    .await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn one_origin_that_waits_does_not_stop_another() {
    let site = site().await;
    site.homeserver.joins("!other", "$start");
    let (mut stuck, mut free) = (Writer::new("b.test"), Writer::new("c.test"));
    site.knows(&stuck).await;
    site.knows(&free).await;
    stuck.message(ROOM);
    hold(&site, &[stuck.message(ROOM), free.message("!other"), free.message("!other")]);

    let status = site.run_until(|status| status.confirmed_total == 3).await;
    assert_eq!(site.homeserver.stored("!other"), free.written);
    assert_eq!(status.backlog[0].room_id, ROOM);
}

#[tokio::test(start_paused = true)]
async fn a_room_that_the_homeserver_is_not_in_holds_nothing_up() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    hold(&site, &[writer.message("!elsewhere"), writer.message(ROOM)]);
    site.run_until(|status| status.confirmed_total == 2).await;
    assert_eq!(site.homeserver.stored(ROOM).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_without_events_is_confirmed_by_the_homeservers_answer() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    hold(&site, &[writer.edu()]);
    site.run_until(|status| status.confirmed_total == 1).await;
    assert_eq!(site.homeserver.edus(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_homeserver_that_can_not_take_mail_now_gets_it_later() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let limited = r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":700}"#;
    site.homeserver.answer_next(&[(401, "{}"), (429, limited), (500, ""), (502, "<html>")]);
    hold(&site, &[writer.message(ROOM)]);
    site.run_until(|status| status.confirmed_total == 1).await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn what_the_homeserver_refuses_for_good_is_parked_with_its_words_and_the_rest_goes_on() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.homeserver.answer_next(&[(403, r#"{"errcode":"M_FORBIDDEN","error":"no such luck"}"#)]);
    hold(&site, &[writer.edu(), writer.message(ROOM)]);
    let status = site.run_until(|status| status.confirmed_total == 1).await;
    let parked = &status.waiting[0];
    assert_eq!((parked.state, status.parked_total), ("parked", 1));
    assert!(parked.reason.as_ref().unwrap().contains("no such luck"));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_the_homeserver_took_and_dropped_is_delivered_again_and_parked_at_last() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let letters = [writer.message(ROOM), writer.message(ROOM)];
    site.homeserver.drops(&writer.written[0], 2);
    hold(&site, &letters);
    site.run_until(|status| status.confirmed_total == 2 && status.backlog.is_empty()).await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);

    hold(&site, &[writer.message(ROOM)]);
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
async fn an_event_that_the_homeserver_refuses_is_parked_with_its_words() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let letter = writer.message(ROOM);
    let refusal = format!(r#"{{"pdus":{{"{}":{{"error":"denied by ACL"}}}}}}"#, writer.written[0]);
    site.homeserver.answer_next(&[(200, refusal.leak())]);
    hold(&site, &[letter]);
    site.run_until(|status| status.events_parked_total == 1).await;
    assert!(parked_events(&site).await[0].reason.contains("denied by ACL"));
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_before_a_restart_is_confirmed_after_it() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    hold(&site, &(0..5).map(|_| writer.message(ROOM)).collect::<Vec<_>>());
    site.run_until(|status| status.counts.get("delivered_unconfirmed") > Some(&0)).await;
    let site = site.restarted().await;
    site.run_until(|status| status.confirmed_total == 5).await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn mail_that_was_never_answered_is_delivered_again_after_a_restart() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.homeserver.answer_next(&[(504, ""); 3]);
    hold(&site, &[writer.message(ROOM)]);
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
async fn a_strangers_key_is_never_used_and_disturbs_nothing_later() {
    let site = site().await;
    let mut stranger = Writer::impostor("b.test");
    let mut writer = Writer::new("b.test");
    hold(&site, &[stranger.edu()]);
    site.run_with(async |inbox| {
        let status = status_when(&inbox, |status| !status.waiting.is_empty()).await;
        assert_eq!(status.waiting[0].state, "unverified_first_contact");
        assert!(site.homeserver.transactions().is_empty());

        site.knows(&writer).await;
        hold(&site, &[writer.message(ROOM)]);
        let status = status_when(&inbox, |status| {
            status.confirmed_total == 1 && status.counts.get("parked") == Some(&1)
        });
        let status = status.await;
        let reason = status.waiting[0].reason.as_ref().unwrap();
        assert!(reason.contains("does not verify") && reason.contains(RELAY), "{reason}");
    })
    .await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn mail_of_a_server_whose_key_is_not_believed_yet_is_delivered_when_it_is() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    hold(&site, &[writer.message(ROOM), writer.message(ROOM)]);
    let state = |status: &InboxStatus| status.counts.get("unverified_first_contact").copied();
    site.run_until(|status| state(status) == Some(2)).await;
    site.knows(&writer).await;
    let site = site.restarted().await;
    site.run_until(|status| status.confirmed_total == 2).await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn names_whose_servers_hang_do_not_delay_mail_whose_key_is_trusted() {
    let site = site().await;
    let strangers: Vec<_> = (0..30).map(|number| format!("s{number}.test")).collect();
    for stranger in &strangers {
        site.relays.set(stranger, Manner::Hangs);
        hold(&site, &[Writer::new(stranger).message(ROOM)]);
    }
    let mut writer = Writer::new("z.test");
    hold(&site, &[writer.message(ROOM)]);
    let unverified = |status: &InboxStatus| status.counts.get("unverified_first_contact").copied();
    site.run_with(async |inbox| {
        status_when(&inbox, |status| unverified(status) == Some(31)).await;
        // A round begins, and its questions hang.
        tokio::time::advance(Duration::from_secs(15)).await;
        site.knows(&writer).await;
        let trusted_at = Instant::now();
        inbox.judge_soon(&name("z.test"));
        status_when(&inbox, |status| status.confirmed_total == 1).await;
        assert!(trusted_at.elapsed() < Duration::from_secs(5));
    })
    .await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn mail_that_is_too_old_or_from_the_future_is_parked() {
    let site = site().await;
    let day = Duration::from_secs(24 * 3600);
    let mut old = Writer::new("b.test").signs_at(BEGINNING.before(31 * day));
    let mut early = Writer::new("c.test").signs_at(BEGINNING.after(day));
    site.knows(&old).await;
    site.knows(&early).await;
    hold(&site, &[old.message(ROOM), early.message(ROOM)]);
    let status = site.run_until(|status| status.parked_total == 2).await;
    assert!(status.waiting[0].reason.as_ref().unwrap().contains("longer ago"));
    assert!(status.waiting[1].reason.as_ref().unwrap().contains("future"));
    assert!(site.homeserver.transactions().is_empty());
}

#[tokio::test(start_paused = true)]
async fn of_mail_without_a_proof_the_events_are_delivered_and_the_rest_is_parked() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    let pdu = writer.draft(ROOM);
    let edu = serde_json::json!({"edu_type": "m.typing", "content": {}});
    hold(&site, &[writer.letter(&[pdu], &[edu]).without_proof()]);
    let status = site
        .run_until(|status| status.parked_total == 1 && status.events_confirmed_total == 1)
        .await;
    assert!(status.waiting[0].reason.as_ref().unwrap().contains("without its origin's proof"));
    assert_eq!(status.waiting[0].origin.as_str(), "b.test");
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
    assert_eq!((site.homeserver.edus(), site.homeserver.transactions().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn without_a_proof_an_altered_event_is_parked_and_the_true_one_arrives() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let pdu = writer.draft(ROOM);
    let mut altered = pdu.clone();
    altered["content"] = serde_json::json!({});
    hold(&site, &[writer.letter(&[altered], &[]).without_proof()]);
    site.run_with(async |inbox| {
        let status = status_when(&inbox, |status| status.parked_total == 1).await;
        assert!(status.waiting[0].reason.as_ref().unwrap().contains("altered"), "{status:#?}");
        hold(&site, &[writer.letter(&[pdu], &[])]);
        status_when(&inbox, |status| status.confirmed_total == 1).await;
    })
    .await;
    assert_eq!((site.homeserver.own_transactions(), site.homeserver.transactions().len()), (0, 1));
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn without_a_proof_an_event_of_a_room_that_is_not_known_is_kept() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    hold(&site, &[writer.message("!elsewhere").without_proof()]);
    let status = site.run_until(|status| status.parked_total == 1).await;
    assert!(status.waiting[0].reason.as_ref().unwrap().contains("does not know"), "{status:#?}");
}

async fn parked_events(site: &InboundSite) -> Vec<backlog_rows::ParkedRow> {
    backlog_rows::parked(&site.node.site.database, None, 100).await.unwrap()
}
