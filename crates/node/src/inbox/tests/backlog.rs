//! What can't be delivered as it came: gaps, capsules, access lists.

use restante_relay_api::Content;
use restante_sqlite_faults::lose_page;
use serde_json::json;

use super::*;
use crate::inbox::mail::DIRECT;
use crate::test_inbound::{GAP_WAIT, Letter};

const OTHER: &str = "!other";

#[tokio::test(start_paused = true)]
async fn a_gap_in_one_room_stops_neither_other_rooms_nor_to_device_messages() {
    let site = InboundSite::with_room().await;
    site.homeserver.joins(OTHER, "$start");
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let first = writer.message(ROOM);
    let (after_gap, elsewhere) = (writer.draft(ROOM), writer.draft(OTHER));
    let edu = json!({"edu_type": "m.direct_to_device", "content": {}});
    let mixed = writer.letter(&[after_gap, elsewhere], &[edu]);
    site.hold(&[mixed]);

    site.run_with(async |inbox| {
        let status = status_when(&inbox, |status| status.confirmed_total == 1).await;
        assert_eq!((status.backlog[0].room_id.as_str(), status.backlog[0].waiting), (ROOM, 1));
        assert_eq!(site.homeserver.stored(OTHER), [writer.written[2].clone()]);
        assert_eq!(site.homeserver.edus(), 1);
        let lacks = |status: &InboxStatus| {
            let reason = status.backlog.first().and_then(|room| room.reason.as_ref());
            reason.is_some_and(|reason| reason.contains(&writer.written[0]))
        };
        status_when(&inbox, lacks).await;
        site.hold(&[first]);
        status_when(&inbox, |status| status.backlog.is_empty()).await;
    })
    .await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written[..2]);
    assert_eq!(site.homeserver.own_transactions(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_waited_for_while_a_relay_does_not_answer_but_not_for_ever() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    writer.message(ROOM);
    site.hold(&[writer.message(ROOM)]);
    site.relays.set("away.test", Manner::Hangs);
    site.node.site.relays.add(name(OWN_NAME), name("away.test").into()).await.unwrap();
    let began = tokio::time::Instant::now();
    site.run_with(async |inbox| {
        while inbox.status().await.unwrap().backlog.is_empty() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(900) && waited < Duration::from_secs(1200), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn what_follows_a_backlog_joins_it_and_all_comes_out_in_order() {
    let site = InboundSite::with_room().await;
    let (mut writer, mut other) = (Writer::new("b.test"), Writer::new("c.test"));
    site.knows(&writer).await;
    site.knows(&other).await;
    let first = writer.message(ROOM);
    let second = writer.message(ROOM);
    let second_id = writer.written[1].clone();
    let (reply, reply_id) = other.draft_after(ROOM, &[&second_id]);
    let (last, _) = writer.draft_after(ROOM, &[&reply_id, &second_id]);
    let letters = [writer.letter(&[last], &[]), other.letter(&[reply], &[]), second];
    site.hold(&letters);
    site.run_with(async |inbox| {
        status_when(&inbox, |status| status.confirmed_total == 3).await;
        assert!(site.homeserver.stored(ROOM).is_empty());
        site.hold(&[first]);
        status_when(&inbox, |status| status.backlog.is_empty()).await;
    })
    .await;
    let expected =
        [&writer.written[0], &writer.written[1], &reply_id, &writer.written[2]].map(String::clone);
    assert_eq!(site.homeserver.stored(ROOM), expected);
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_the_homeserver_closed_by_other_means_is_noticed() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    writer.message(ROOM);
    site.hold(&[writer.message(ROOM)]);
    site.run_with(async |inbox| {
        status_when(&inbox, |status| status.confirmed_total == 1).await;
        site.homeserver.gets(ROOM, &writer.written[0]);
        status_when(&inbox, |status| status.backlog.is_empty()).await;
    })
    .await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn a_backlog_is_looked_at_as_soon_as_its_origin_is_back() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    writer.message(ROOM);
    site.hold(&[writer.message(ROOM)]);
    site.run_with(async |inbox| {
        status_when(&inbox, |status| !status.backlog.is_empty()).await;
        let next_look = || {
            let next = inbox.state().backlog.next();
            next.map(|(_, due)| due.since(inbox.elapsed())).unwrap_or_default()
        };
        status_when(&inbox, |_| next_look() > Duration::from_secs(25)).await;
        site.homeserver.gets(ROOM, &writer.written[0]);
        let began = Instant::now();
        site.node.destinations.answered(&name("b.test")).await;
        status_when(&inbox, |status| status.backlog.is_empty()).await;
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    })
    .await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn a_backlog_outlives_a_restart_and_nothing_of_it_comes_twice() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let first = writer.message(ROOM);
    site.hold(&(0..60).map(|_| writer.message(ROOM)).collect::<Vec<_>>());
    site.run_until(|status| status.confirmed_total == 60).await;
    let site = site.restarted().await;
    site.hold(&[first]);
    site.run_until(|status| status.backlog.first().is_some_and(|room| room.unconfirmed > 0)).await;
    let site = site.restarted().await;
    site.run_until(|status| status.backlog.is_empty()).await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
    assert!(site.homeserver.most_staged() <= 40);
}

#[tokio::test(start_paused = true)]
async fn events_in_a_capsule_close_the_gap_before_their_transaction() {
    let site = InboundSite::with_room().await;
    let (mut writer, mut third) = (Writer::new("b.test"), Writer::new("c.test"));
    site.knows(&writer).await;
    let (one, one_id) = third.draft_after(ROOM, &["$start"]);
    let (two, two_id) = writer.draft_after(ROOM, &[&one_id]);
    let (three, three_id) = writer.draft_after(ROOM, &[&two_id]);
    site.hold(&[writer.letter_with(&[three], &[one, two])]);
    site.run_until(|status| status.confirmed_total == 1 && status.backlog.is_empty()).await;
    assert_eq!(site.homeserver.stored(ROOM), [one_id, two_id, three_id]);
}

/// An event that nobody sends, and a transaction with what follows it, which is enclosed.
fn letter_with_capsule(writer: &mut Writer) -> Letter {
    let (one, one_id) = writer.draft_after(ROOM, &["$start"]);
    let (two, _) = writer.draft_after(ROOM, &[&one_id]);
    writer.letter_with(&[two], &[one])
}

/// What came directly, before its sender left it with a relay.
fn came_directly(letter: &Letter) -> Mail {
    let envelope = &letter.envelope;
    let content = Content::parse(envelope.content.clone()).unwrap();
    let (origin, txn_id) = (envelope.origin.clone(), envelope.txn_id.clone());
    let target = format!("/_matrix/federation/v1/send/{txn_id}");
    Mail {
        key: seen::TransactionKey { origin, txn_id, sha256: *content.sha256() },
        content: content.raw().clone(),
        proof: Some((target, letter.authorization())),
        place: None,
        extras: Bytes::new(),
        is_entire: false,
        source: DIRECT.to_owned(),
        request_id: None,
        standing: Standing::Waiting,
    }
}

#[tokio::test(start_paused = true)]
async fn mail_that_damage_keeps_out_keeps_no_other_mail_out() {
    let site = InboundSite::with_room().await;
    let fill = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
        INSERT INTO seen (origin, txn_id, sha256, seen_at) SELECT iif(i < 20, 'a.test', 'z.test'), printf('%04d', i), zeroblob(32), 1700000000000 FROM n;";
    site.node.run_sql(fill).await;
    let site = site.restarted().await;
    lose_page(&site.node.folder.path().join("node.sqlite"), "seen", "leaf").unwrap();
    let site = site.restarted().await;
    let (mut a, mut z) = (Writer::new("a.test"), Writer::new("z.test"));
    let inbox = Inbox::open(site.node.site.clone(), GAP_WAIT).await.unwrap();

    let mails = [a.edu(), z.edu()].iter().map(came_directly).collect();
    let arrived = inbox.arrive(mails).await.unwrap();

    assert_eq!(arrived, [Arrival::Full, Arrival::Stored]);
    let mails = vec![came_directly(&z.edu())];
    assert_eq!(inbox.arrive(mails).await.unwrap(), [Arrival::Stored]);
}

#[tokio::test(start_paused = true)]
async fn a_relays_copy_brings_its_capsule_to_what_came_directly_and_waits() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let letter = letter_with_capsule(&mut writer);
    site.relays.set("away.test", Manner::Hangs);
    site.node.site.relays.add(name(OWN_NAME), name("away.test").into()).await.unwrap();
    site.run_with(async |inbox| {
        let arrived = inbox.arrive(vec![came_directly(&letter)]).await.unwrap();
        assert_eq!(arrived, [Arrival::Stored]);
        let lacks = |status: &InboxStatus| {
            let reason = status.waiting.first().and_then(|waiting| waiting.reason.as_ref());
            reason.is_some_and(|reason| reason.contains(&writer.written[0]))
        };
        status_when(&inbox, lacks).await;
        let began = Instant::now();
        site.hold(std::slice::from_ref(&letter));
        status_when(&inbox, |status| status.confirmed_total == 1 && status.backlog.is_empty())
            .await;
        assert!(began.elapsed() < GAP_WAIT.gap_wait / 2, "{:?}", began.elapsed());
        assert!(inbox.state().load.is_empty());
    })
    .await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn a_copys_capsule_joins_what_was_set_aside_without_it() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let letter = letter_with_capsule(&mut writer);
    site.hold(&[letter.without("org.restante.capsule")]);
    let lacks = |status: &InboxStatus| {
        status.waiting.is_empty() && status.backlog.first().is_some_and(|room| room.waiting == 1)
    };
    site.run_until(lacks).await;
    assert!(site.homeserver.stored(ROOM).is_empty());
    site.hold(&[letter]);
    site.run_with(async |inbox| {
        status_when(&inbox, |status| status.backlog.is_empty()).await;
        assert!(inbox.state().load.is_empty());
    })
    .await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn a_capsule_that_the_origins_node_did_not_leave_is_not_opened() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let (one, one_id) = writer.draft_after(ROOM, &["$start"]);
    let (two, _) = writer.draft_after(ROOM, &[&one_id]);
    let letter = writer.letter_with(&[two], &[one]);
    site.hold(&[letter.with_altered_capsule()]);
    site.run_until(|status| {
        status
            .backlog
            .first()
            .is_some_and(|room| (room.waiting, room.reason.is_some()) == (1, true))
    })
    .await;
    assert!(site.homeserver.stored(ROOM).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_the_rooms_access_list_denies_is_parked_and_not_delivered() {
    let site = InboundSite::with_room().await;
    let (mut writer, mut denied) = (Writer::new("b.test"), Writer::new("c.test"));
    site.knows(&writer).await;
    site.homeserver.has_acl(ROOM, json!({"allow": ["*"], "deny": ["c.test"]}));
    let (bad, bad_id) = denied.draft_after(ROOM, &["$start"]);
    let (good, good_id) = writer.draft_after(ROOM, &["$start"]);
    let (last, last_id) = writer.draft_after(ROOM, &[&good_id]);
    site.hold(&[writer.letter_with(&[last], &[bad, good])]);
    site.run_until(|status| status.events_parked_total == 1 && status.backlog.is_empty()).await;
    assert_eq!(site.homeserver.stored(ROOM), [good_id, last_id]);
    let parked = parked_events(&site).await;
    assert_eq!(parked[0].event.1, bad_id);
    assert!(parked[0].reason.contains("ACL"));

    // The operator looks at it, and has it tried again once the list is another.
    site.homeserver.has_acl(ROOM, json!({"allow": ["*"]}));
    let stored = site
        .run_with(async |inbox| {
            let parked = inbox.parked(10).await.unwrap();
            let id = ParkedId::from(&parked[0]);
            assert_eq!(id.to_string().parse(), Ok(id));
            assert!(inbox.parked_one(id).await.unwrap().unwrap().content.starts_with(b"{"));
            assert_eq!(inbox.retry_parked(id).await.unwrap(), Retried::Waits);
            assert_eq!(inbox.retry_parked(id).await.unwrap(), Retried::Unknown);
            status_when(&inbox, |status| status.backlog.is_empty()).await;
            site.homeserver.stored(ROOM)
        })
        .await;
    assert_eq!(stored.last(), Some(&bad_id));
}

#[tokio::test(start_paused = true)]
async fn an_event_on_a_branch_from_before_the_own_server_joined_does_not_hold_a_room_up() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let letter = writer.message(ROOM);
    site.homeserver.ends_on_old_branch();
    site.homeserver.drops(&writer.written[0], 1);
    site.hold(&[letter]);
    site.run_with(async |inbox| {
        status_when(&inbox, |_| site.homeserver.stored(ROOM).len() == 1).await;
    })
    .await;
    assert_eq!(site.homeserver.own_transactions(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_parked_event_that_is_dropped_gives_its_room_back() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let letter = writer.message(ROOM);
    let refusal = format!(r#"{{"pdus":{{"{}":{{"error":"no"}}}}}}"#, writer.written[0]);
    site.homeserver.answer_next(&[(200, refusal.leak())]);
    site.hold(&[letter]);
    site.run_with(async |inbox| {
        status_when(&inbox, |status| status.events_parked_total == 1).await;
        let id = ParkedId::from(&inbox.parked(10).await.unwrap()[0]);
        assert!(!inbox.state().load.is_empty());
        assert!(inbox.drop_parked(id).await.unwrap());
        assert!(!inbox.drop_parked(id).await.unwrap());
        assert!(inbox.state().load.is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_lacks_its_predecessors_for_as_long_as_relays_keep_mail_is_parked() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    writer.message(ROOM);
    site.hold(&[writer.message(ROOM)]);
    site.run_until(|status| !status.backlog.is_empty()).await;
    site.node.clock.advance(Duration::from_secs(31 * 24 * 3600));
    let site = site.restarted().await;
    site.run_until(|status| status.events_parked_total == 1).await;
    assert!(parked_events(&site).await[0].reason.contains("never came"));
}

#[tokio::test(start_paused = true)]
async fn mail_whose_key_the_homeserver_can_not_get_is_taken_apart_after_a_while() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.homeserver.answer_next(&[(401, r#"{"error":"no valid key"}"#); 200]);
    let pdu = writer.draft(ROOM);
    let edu = json!({"edu_type": "m.typing", "content": {}});
    site.hold(&[writer.letter(&[pdu], &[edu])]);
    let status = site
        .run_with(async |inbox| {
            while inbox.status().await.unwrap().parked_total == 0 {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            site.homeserver.forget_answers();
            status_when(&inbox, |status| status.events_confirmed_total == 1).await
        })
        .await;
    assert!(status.waiting[0].reason.as_ref().unwrap().contains("no valid key"));
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn numbers_that_no_relay_gave_are_reported_until_they_come() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let letters: Vec<_> = (0..5).map(|_| writer.edu()).collect();
    site.hold(&[letters[0].clone(), letters[4].clone()]);
    site.run_with(async |inbox| {
        let status = status_when(&inbox, |status| status.confirmed_total == 2).await;
        let missing = &status.missing[0];
        assert_eq!((missing.origin.as_str(), missing.first, missing.last), ("b.test", 2, 4));
        assert_eq!(missing.relays, RELAY);
        site.hold(&letters[2..3]);
        let status = status_when(&inbox, |status| status.confirmed_total == 3).await;
        let left: Vec<_> = status.missing.iter().map(|hole| (hole.first, hole.last)).collect();
        assert_eq!(left, [(2, 2), (4, 4)]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn of_a_body_that_grew_by_events_alone_nothing_is_parked() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let edu = json!({"edu_type": "m.direct_to_device", "content": {"n": 1}});
    let (one, two) = (writer.draft(ROOM), writer.draft(ROOM));
    let first = writer.letter(std::slice::from_ref(&one), std::slice::from_ref(&edu));
    site.hold(&[first]);
    site.run_until(|status| status.confirmed_total == 1).await;
    site.hold(&[writer.letter_again(&[one, two], &[edu])]);
    let status =
        site.run_until(|status| status.confirmed_total == 2 && status.backlog.is_empty()).await;
    assert_eq!((status.parked_total, site.homeserver.edus()), (0, 1));
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn a_defect_that_a_backlog_meets_does_not_stop_it_for_ever() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    let letter = writer.message(ROOM).without_proof();
    site.homeserver.panic_next(1);
    site.hold(&[letter]);
    site.run_until(|status| status.events_confirmed_total == 1).await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn of_a_grown_body_nothing_is_lost_and_nothing_comes_twice() {
    let site = InboundSite::with_room().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let edu = |n: u32| json!({"edu_type": "m.direct_to_device", "content": {"n": n}});
    let (one, two, three) = (writer.draft(ROOM), writer.draft(ROOM), writer.draft(ROOM));
    let first = writer.letter(std::slice::from_ref(&one), &[edu(1)]);
    let grown = writer.letter_again(&[one.clone(), two.clone()], &[edu(1), edu(2)]);
    site.hold(&[first, grown]);
    site.run_until(|status| status.confirmed_total == 2).await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written[..2]);
    assert_eq!((site.homeserver.edus(), site.homeserver.transactions().len()), (2, 1));

    // A further one comes when the homeserver has taken the transaction.
    site.hold(&[writer.letter_again(&[one, two, three], &[edu(1), edu(2), edu(3)])]);
    let status =
        site.run_until(|status| status.parked_total == 1 && status.backlog.is_empty()).await;
    let reason = status.waiting[0].reason.as_ref().unwrap();
    assert!(reason.contains("takes each id once: 1 of its EDUs"), "{reason}");
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn what_waits_here_of_others_goes_first_though_the_origin_can_be_reached() {
    let site = InboundSite::with_room().await;
    let (mut writer, mut other) = (Writer::new("b.test"), Writer::new("c.test"));
    site.knows(&writer).await;
    site.knows(&other).await;
    let before = other.message(ROOM);
    let (after, _) = writer.draft_after(ROOM, &[&other.written[0]]);
    let after = writer.letter(&[after], &[]);
    site.node.destinations.answered(&name("b.test")).await;
    site.hold(&[after, before]);
    site.run_until(|status| status.confirmed_total == 2).await;
    let expected = [other.written[0].clone(), writer.written[0].clone()];
    assert_eq!(site.homeserver.stored(ROOM), expected);
    assert_eq!(site.homeserver.transactions().len(), 2, "nothing was delivered twice");
}

/// Two transactions that hold what each other's events follow: neither can go before the other.
#[tokio::test(start_paused = true)]
async fn mail_that_waits_for_each_other_in_a_circle_comes_out_in_the_rooms_order() {
    let site = InboundSite::with_room().await;
    site.homeserver.joins(OTHER, "$start");
    let (mut writer, mut other) = (Writer::new("b.test"), Writer::new("c.test"));
    site.knows(&writer).await;
    site.knows(&other).await;
    let (of_b, of_c) = (writer.draft(OTHER), other.draft(ROOM));
    let (after_c, after_c_id) = writer.draft_after(ROOM, &[&other.written[0]]);
    let (after_b, after_b_id) = other.draft_after(OTHER, &[&writer.written[0]]);
    let letters = [writer.letter(&[after_c, of_b], &[]), other.letter(&[after_b, of_c], &[])];
    for server in ["b.test", "c.test"] {
        site.node.destinations.answered(&name(server)).await;
    }
    site.hold(&letters);
    let began = tokio::time::Instant::now();
    let all_is_there =
        |_: &InboxStatus| [ROOM, OTHER].iter().all(|room| site.homeserver.stored(room).len() == 2);
    site.run_until(all_is_there).await;
    assert_eq!(site.homeserver.stored(ROOM), [other.written[0].clone(), after_c_id]);
    assert_eq!(site.homeserver.stored(OTHER), [writer.written[0].clone(), after_b_id]);
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}
