//! Coming back to a backlog: at several relays, over slow lines, and through cuts.

use std::time::Duration;

use restante_relay_api::endpoints::{CAPSULE_MEMBER, WAYBILL_MEMBER};
use tokio::time::Instant;

use super::{FIRST, ROOM, SECOND, confirmed, site};
use crate::inbox::{Inbox, InboxStatus};
use crate::retriever::turns::PROGRESS_WITHIN;
use crate::test_inbound::{InboundSite, Letter, Manner, Writer, status_when};

const SECOND_OF_TIME: Duration = Duration::from_secs(1);

/// A site that knows `writer`, and so many letters of it.
async fn with_letters(count: usize) -> (InboundSite, Vec<Letter>) {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    (site, (0..count).map(|_| writer.edu()).collect())
}

fn hold(site: &InboundSite, relays: &[&str], letters: &[Letter]) {
    for relay in relays {
        letters.iter().for_each(|letter| site.relays.hold(relay, letter));
    }
}

/// As soon as nothing is left at these relays.
async fn emptied(inbox: &Inbox, site: &InboundSite, relays: &[&str]) {
    let is_empty = |_: &InboxStatus| relays.iter().all(|relay| site.relays.left(relay) == 0);
    status_when(inbox, is_empty).await;
}

async fn after(inbox: &Inbox, time: Duration) {
    let begun = Instant::now();
    status_when(inbox, |_| begun.elapsed() >= time).await;
}

#[tokio::test(start_paused = true)]
async fn copies_at_another_relay_are_not_downloaded() {
    let (site, letters) = with_letters(150).await;
    hold(&site, &[FIRST, SECOND], &letters);
    let more = letters[0].clone();
    site.run_with(async |inbox| {
        emptied(&inbox, &site, &[FIRST, SECOND]).await;
        assert_eq!((site.relays.given(FIRST), site.relays.given(SECOND)), (150, 0));
        site.relays.hold(SECOND, &more);
        after(&inbox, SECOND_OF_TIME).await;
        assert_eq!(site.relays.left(SECOND), 0, "a late copy is not even kept there");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_does_not_hear_of_copies_is_emptied_as_well_and_they_take_effect_once() {
    let (site, letters) = with_letters(40).await;
    site.relays.set(SECOND, Manner::Deaf);
    hold(&site, &[FIRST, SECOND], &letters);
    site.run_with(async |inbox| emptied(&inbox, &site, &[FIRST, SECOND]).await).await;
    assert_eq!((site.relays.given(FIRST), site.relays.given(SECOND)), (40, 40));
}

#[tokio::test(start_paused = true)]
async fn what_one_relay_altered_keeps_no_true_copy_away() {
    let (site, letters) = with_letters(3).await;
    let stripped: Vec<Letter> = letters.iter().map(Letter::without_proof).collect();
    hold(&site, &[FIRST], &stripped);
    hold(&site, &[SECOND], &letters);
    site.run_with(async |inbox| {
        emptied(&inbox, &site, &[FIRST, SECOND]).await;
        assert_eq!((site.relays.given(SECOND), site.relays.told_of(SECOND)), (3, 0));
        status_when(&inbox, |_| site.relays.told_of(FIRST) == 3).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_one_relay_stripped_keeps_no_whole_copy_away() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let bare = writer.edu();
    let pdus = [writer.draft(ROOM), writer.draft(ROOM)];
    let with_capsule = writer.letter_with(&pdus[1..], &pdus[..1]);
    let stripped = [bare.without(WAYBILL_MEMBER), with_capsule.without(CAPSULE_MEMBER)];
    hold(&site, &[FIRST], &stripped);
    hold(&site, &[SECOND], &[bare, with_capsule]);
    site.run_with(async |inbox| {
        emptied(&inbox, &site, &[FIRST, SECOND]).await;
        assert_eq!((site.relays.given(FIRST), site.relays.given(SECOND)), (2, 2));
        assert_eq!(site.relays.told_of(SECOND), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_one_relay_stripped_keeps_no_whole_copy_away_that_nobody_can_verify_yet() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    let pdus = [writer.draft(ROOM), writer.draft(ROOM)];
    let letter = writer.letter_with(&pdus[1..], &pdus[..1]);
    hold(&site, &[FIRST], &[letter.without(CAPSULE_MEMBER)]);
    site.run_with(async |inbox| {
        emptied(&inbox, &site, &[FIRST]).await;
        hold(&site, &[SECOND], &[letter]);
        emptied(&inbox, &site, &[SECOND]).await;
        assert_eq!(site.homeserver.stored(ROOM).len(), 0);
        site.knows(&writer).await;
        while site.homeserver.stored(ROOM).len() < 2 {
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_whole_copy_completes_what_waits_without_its_waybill() {
    let (site, letters) = with_letters(1).await;
    site.homeserver.is_down(true);
    hold(&site, &[FIRST], &[letters[0].without(WAYBILL_MEMBER)]);
    site.run_with(async |inbox| {
        emptied(&inbox, &site, &[FIRST]).await;
        let has_place = || {
            site.node.site.database.read(|connection| {
                let sql = "SELECT stream IS NOT NULL FROM inbox";
                connection.query_row(sql, [], |row| row.get::<_, bool>(0))
            })
        };
        assert!(!has_place().await.unwrap());
        hold(&site, &[SECOND], &letters);
        emptied(&inbox, &site, &[SECOND]).await;
        assert!(has_place().await.unwrap());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_hangs_keeps_its_turn_for_a_while_and_no_longer() {
    let (site, letters) = with_letters(100).await;
    site.relays.set(FIRST, Manner::Hangs);
    hold(&site, &[SECOND], &letters);
    site.run_with(async |inbox| {
        let begun = Instant::now();
        emptied(&inbox, &site, &[SECOND]).await;
        let took = begun.elapsed();
        assert!(took < PROGRESS_WITHIN + SECOND_OF_TIME * 2, "{took:?}");
        assert!(took >= PROGRESS_WITHIN, "it had its turn first: {took:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_drips_does_not_keep_what_others_have() {
    let (site, letters) = with_letters(100).await;
    site.relays.set(FIRST, Manner::Drips(Duration::from_secs(30)));
    hold(&site, &[FIRST, SECOND], &letters);
    site.run_with(async |inbox| {
        let begun = Instant::now();
        emptied(&inbox, &site, &[SECOND]).await;
        let took = begun.elapsed();
        assert!(took < PROGRESS_WITHIN + SECOND_OF_TIME * 2, "{took:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn mail_for_a_node_that_waits_comes_at_once_from_any_relay_whatever_the_others_do() {
    let (site, letters) = with_letters(2).await;
    site.run_with(async |inbox| {
        after(&inbox, SECOND_OF_TIME).await;
        for (relay, letter) in [SECOND, FIRST].iter().zip(&letters) {
            let begun = Instant::now();
            site.relays.hold(relay, letter);
            emptied(&inbox, &site, &[relay]).await;
            assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_next_part_is_asked_for_while_the_last_one_is_judged() {
    let (site, letters) = with_letters(250).await;
    let mut stranger = Writer::new("stranger.test");
    site.relays.set("stranger.test", Manner::Hangs);
    hold(&site, &[FIRST], &[stranger.edu()]);
    hold(&site, &[FIRST], &letters);
    site.run_with(async |inbox| {
        let begun = Instant::now();
        status_when(&inbox, |_| site.relays.asked(FIRST) > 1).await;
        assert!(begun.elapsed() < SECOND_OF_TIME, "{:?}", begun.elapsed());
        assert_eq!(site.relays.left(FIRST), 251, "the stranger's keys are still looked for");
        emptied(&inbox, &site, &[FIRST]).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_line_is_busy_with_answers_that_take_a_few_seconds_each() {
    let (site, letters) = with_letters(600).await;
    let (round_trip, bytes_per_second) = (Duration::from_millis(300), 60_000);
    site.relays.set(FIRST, Manner::Far { round_trip, bytes_per_second });
    hold(&site, &[FIRST], &letters);
    site.run_with(async |inbox| {
        let (begun, asked) = (Instant::now(), site.relays.asked(FIRST));
        status_when(&inbox, |_| site.relays.given(FIRST) == 600).await;
        let asked = site.relays.asked(FIRST) - asked;
        emptied(&inbox, &site, &[FIRST]).await;
        let line =
            Duration::from_micros(site.relays.given_bytes(FIRST) * 1_000_000 / bytes_per_second);
        let took = begun.elapsed();
        // The line in memory idles for some milliseconds behind each packet, since time passes in steps.
        assert!(line > took.mul_f64(0.85), "the line was busy for {line:?} of {took:?}");
        assert!((6..40).contains(&asked), "{asked} questions in {took:?}");
        assert_eq!(site.relays.given(FIRST), 600, "nothing came twice");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_announces_another_end_than_its_answer_has_gains_nothing() {
    let (site, letters) = with_letters(200).await;
    let (round_trip, bytes_per_second) = (Duration::from_millis(300), 60_000);
    site.relays.set(FIRST, Manner::FarAndFalse { round_trip, bytes_per_second });
    hold(&site, &[FIRST], &letters);
    site.run_with(async |inbox| emptied(&inbox, &site, &[FIRST]).await).await;
    let stored = site.node.site.database.read(|connection| {
        connection.query_row("SELECT count(*) FROM seen", [], |row| row.get::<_, i64>(0))
    });
    assert_eq!(stored.await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_line_that_is_cut_again_and_again_loses_nothing_and_gives_nothing_twice() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.relays.set(FIRST, Manner::Unsteady);
    for _ in 0..120 {
        site.relays.hold(FIRST, &writer.message(ROOM));
    }
    site.run_until(confirmed(120)).await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
    assert_eq!(site.homeserver.transactions().len(), 120);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_stored_is_asked_for_again_though_the_next_part_was_under_way() {
    let (site, letters) = with_letters(60).await;
    let refuse = "CREATE TRIGGER full BEFORE INSERT ON inbox BEGIN SELECT raise(ABORT, 'no'); END";
    let database = &site.node.site.database;
    database.write(move |connection| connection.execute_batch(refuse)).await.unwrap();
    hold(&site, &[FIRST], &letters);
    site.run_with(async |inbox| {
        status_when(&inbox, |_| site.relays.asked(FIRST) > 2).await;
        assert_eq!(site.relays.left(FIRST), 60);
        database.write(|connection| connection.execute_batch("DROP TRIGGER full")).await.unwrap();
        emptied(&inbox, &site, &[FIRST]).await;
        let stored = database.read(|connection| {
            connection.query_row("SELECT count(*) FROM seen", [], |row| row.get::<_, i64>(0))
        });
        assert_eq!(stored.await.unwrap(), 60);
    })
    .await;
}
