//! Mail whose origin is not proven, or not yet.

use restante_federation_proto::Clock as _;

use super::*;

fn unverified(status: &InboxStatus) -> Option<u64> {
    status.counts.get("unverified_first_contact").copied()
}

#[tokio::test(start_paused = true)]
async fn mail_signed_with_a_key_that_is_not_listed_yet_waits_and_is_not_forged() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.relays.publish(&writer.document());
    site.hold(&[writer.message(ROOM)]);
    site.run_with(async |inbox| {
        status_when(&inbox, |status| status.confirmed_total == 1).await;
        writer.changes_its_key();
        site.hold(&[writer.message(ROOM)]);
        let status = status_when(&inbox, |status| !status.waiting.is_empty()).await;
        assert_eq!(status.waiting[0].state, "unverified_first_contact");
        let reason = status.waiting[0].reason.as_ref().unwrap();
        assert!(reason.contains("it did not list that key a short while ago"), "{reason}");
        site.relays.publish(&writer.document());
        status_when(&inbox, |status| status.confirmed_total == 2).await;
    })
    .await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn mail_from_the_future_is_held_until_the_clock_has_caught_up() {
    let site = InboundSite::with_room().await;
    let ahead = Duration::from_secs(24 * 3600);
    let mut writer = Writer::new("b.test").signs_at(BEGINNING.after(ahead));
    site.knows(&writer).await;
    site.hold(&[writer.message(ROOM)]);
    site.run_with(async |inbox| {
        let status = status_when(&inbox, |status| unverified(status) == Some(1)).await;
        let reason = status.waiting[0].reason.as_ref().unwrap();
        assert!(reason.contains("check this machine's clock"), "{reason}");
        site.node.clock.advance(ahead);
        status_when(&inbox, |status| status.confirmed_total == 1).await;
    })
    .await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn every_envelope_is_judged_in_its_turn_however_many_before_it_stay_unverified() {
    let site = InboundSite::with_room().await;
    let (mut writer, mut unlisted) = (Writer::new("b.test"), Writer::new("b.test"));
    unlisted.changes_its_key();
    site.hold(&(0..45).map(|_| unlisted.edu()).collect::<Vec<_>>());
    site.hold(&[writer.message(ROOM)]);
    site.run_with(async |inbox| {
        status_when(&inbox, |status| unverified(status) == Some(46)).await;
        site.knows(&writer).await;
        status_when(&inbox, |status| status.confirmed_total == 1).await;
        assert_eq!(unverified(&inbox.status().await.unwrap()), Some(45));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn slow_keys_do_not_keep_mail_whose_key_is_known_from_being_stored() {
    let site = InboundSite::with_room().await;
    for number in 0..40 {
        let stranger = format!("s{number}.test");
        site.relays.set(&stranger, Manner::Hangs);
        site.hold(&[Writer::new(&stranger).edu()]);
    }
    let mut writer = Writer::new("z.test");
    site.knows(&writer).await;
    site.hold(&[writer.message(ROOM)]);
    let began = Instant::now();
    site.run_with(async |inbox| {
        status_when(&inbox, |status| status.confirmed_total == 1).await;
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        status_when(&inbox, |_| site.relays.left(RELAY) == 0).await;
        assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn mail_that_is_verified_late_is_delivered_in_its_origins_order() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.hold(&(0..30).map(|_| writer.message(ROOM)).collect::<Vec<_>>());
    site.run_with(async |inbox| {
        status_when(&inbox, |status| unverified(status) == Some(30)).await;
        site.knows(&writer).await;
        site.hold(&[writer.message(ROOM)]);
        status_when(&inbox, |status| status.confirmed_total == 31).await;
    })
    .await;
    let expected: Vec<String> = (1..=31).map(|number| format!("t{number}")).collect();
    assert_eq!(site.homeserver.transactions(), expected);
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_read_in_mail_without_a_proof_is_kept() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    let unreadable = serde_json::json!({"type": "m.room.message", "sender": "@x:b.test"});
    site.hold(&[writer.letter(&[unreadable], &[]).without_proof()]);
    let status = site.run_until(|status| status.parked_total == 1).await;
    assert!(status.waiting[0].reason.as_ref().unwrap().contains("can't be read"), "{status:#?}");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_proved_makes_room_when_it_is_too_old_to_be_delivered() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let edu = serde_json::json!({"edu_type": "m.typing", "content": {}});
    site.hold(&[writer.letter(&[], &[edu]).without_proof(), Writer::new("c.test").edu()]);
    let letter = writer.message("!other").without_proof();
    site.homeserver.joins("!other", "$start");
    let refusal = format!(r#"{{"pdus":{{"{}":{{"error":"no"}}}}}}"#, writer.written[0]);
    site.homeserver.answer_next(&[(200, refusal.leak())]);
    site.hold(&[letter]);
    site.run_until(|status| {
        (status.parked_total, unverified(status), status.events_parked_total) == (1, Some(1), 1)
    })
    .await;
    // Mail goes on coming, or the clock would be doubted.
    site.node.clock.advance(Duration::from_secs(36 * 24 * 3600));
    let mut another = Writer::new("d.test").signs_at(site.node.clock.now());
    site.knows(&another).await;
    site.hold(&[another.edu()]);
    site.run_until(|_| site.relays.left(RELAY) == 0).await;
    site.node.clock.advance(Duration::from_secs(2 * 24 * 3600 - 3600));
    let site = site.restarted().await;
    site.run_with(async |inbox| {
        let status = status_when(&inbox, |status| status.unproven_expired_total == 3).await;
        assert!(status.waiting.is_empty(), "{status:#?}");
        status_when(&inbox, |_| inbox.state().load.is_empty()).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_leaps_ahead_takes_nothing_that_waits_for_too_old_at_once() {
    let site = InboundSite::with_room().await;
    site.hold(&[Writer::new("c.test").edu()]);
    site.run_until(|status| unverified(status) == Some(1)).await;
    site.node.clock.advance(Duration::from_secs(38 * 24 * 3600));
    let site = site.restarted().await;
    site.run_with(async |inbox| {
        // The first round is over.
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(unverified(&inbox.status().await.unwrap()), Some(1));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_strangers_key_is_never_used_and_disturbs_nothing_later() {
    let site = InboundSite::with_room().await;
    let mut stranger = Writer::impostor("b.test");
    let mut writer = Writer::new("b.test");
    site.hold(&[stranger.edu()]);
    site.run_with(async |inbox| {
        let status = status_when(&inbox, |status| !status.waiting.is_empty()).await;
        assert_eq!(status.waiting[0].state, "unverified_first_contact");
        assert!(site.homeserver.transactions().is_empty());

        site.knows(&writer).await;
        site.hold(&[writer.message(ROOM)]);
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
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.hold(&[writer.message(ROOM), writer.message(ROOM)]);
    let state = |status: &InboxStatus| status.counts.get("unverified_first_contact").copied();
    site.run_until(|status| state(status) == Some(2)).await;
    site.knows(&writer).await;
    let site = site.restarted().await;
    site.run_until(|status| status.confirmed_total == 2).await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn names_whose_servers_hang_do_not_delay_mail_whose_key_is_trusted() {
    let site = InboundSite::with_room().await;
    let strangers: Vec<_> = (0..30).map(|number| format!("s{number}.test")).collect();
    for stranger in &strangers {
        site.relays.set(stranger, Manner::Hangs);
        site.hold(&[Writer::new(stranger).message(ROOM)]);
    }
    let mut writer = Writer::new("z.test");
    site.hold(&[writer.message(ROOM)]);
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
async fn of_mail_without_a_proof_the_events_are_delivered_and_the_rest_is_parked() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    let pdu = writer.draft(ROOM);
    let edu = serde_json::json!({"edu_type": "m.typing", "content": {}});
    site.hold(&[writer.letter(&[pdu], &[edu]).without_proof()]);
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
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let pdu = writer.draft(ROOM);
    let mut altered = pdu.clone();
    altered["content"] = serde_json::json!({});
    site.hold(&[writer.letter(&[altered], &[]).without_proof()]);
    site.run_with(async |inbox| {
        let status = status_when(&inbox, |status| status.parked_total == 1).await;
        assert!(status.waiting[0].reason.as_ref().unwrap().contains("altered"), "{status:#?}");
        site.hold(&[writer.letter(&[pdu], &[])]);
        status_when(&inbox, |status| status.confirmed_total == 1).await;
    })
    .await;
    assert_eq!((site.homeserver.own_transactions(), site.homeserver.transactions().len()), (0, 1));
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn without_a_proof_an_event_of_a_room_that_is_not_known_is_kept() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.hold(&[writer.message("!elsewhere").without_proof()]);
    let status = site.run_until(|status| status.parked_total == 1).await;
    assert!(status.waiting[0].reason.as_ref().unwrap().contains("does not know"), "{status:#?}");
}
