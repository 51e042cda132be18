//! Collecting from relays in memory: honest, slow, forgetful, lying.

mod draining;

use std::time::Duration;

use restante_federation_proto::Timestamp;
use restante_relay_api::{LeftMail, Losses, OriginLosses, Told};

use crate::inbox::InboxStatus;
use crate::losses;
use crate::relay_book::{Departure, DepartureState};
use crate::test_inbound::{InboundSite, Manner, Writer, distinct, status_when};

const FIRST: &str = "relay1.test";
const SECOND: &str = "relay2.test";
const ROOM: &str = "!room";

async fn site() -> InboundSite {
    let site = InboundSite::new(&[FIRST, SECOND]).await;
    site.homeserver.joins(ROOM, "$start");
    site
}

fn confirmed(count: u64) -> impl Fn(&InboxStatus) -> bool {
    move |status| status.confirmed_total == count
}

#[tokio::test(start_paused = true)]
async fn mail_spread_over_two_relays_is_delivered_once_and_in_the_origins_order() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    for n in 0..12 {
        let letter = writer.message(ROOM);
        if n % 3 != 0 {
            site.relays.hold(FIRST, &letter);
        }
        if n % 3 != 1 {
            site.relays.hold(SECOND, &letter);
        }
    }
    site.run_until(confirmed(12)).await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
    assert_eq!(site.homeserver.transactions().len(), 12);
}

#[tokio::test(start_paused = true)]
async fn mail_that_is_left_during_the_long_poll_is_delivered_at_once() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.run_with(async |inbox| {
        site.relays.hold(FIRST, &writer.message(ROOM));
        status_when(&inbox, confirmed(1)).await;
        let before = tokio::time::Instant::now();
        site.relays.hold(FIRST, &writer.message(ROOM));
        status_when(&inbox, confirmed(2)).await;
        assert!(before.elapsed() < Duration::from_secs(5));
        status_when(&inbox, |_| site.relays.left(FIRST) == 0).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_never_answers_does_not_stop_the_others() {
    let site = site().await;
    site.relays.set(SECOND, Manner::Hangs);
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    for _ in 0..3 {
        site.relays.hold(FIRST, &writer.message(ROOM));
    }
    site.run_until(confirmed(3)).await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn mail_that_a_relay_altered_is_parked_with_its_name_and_the_true_copy_is_delivered() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let letter = writer.message(ROOM);
    site.relays.hold(FIRST, &letter.altered());
    site.relays.hold(SECOND, &letter);
    let status = site
        .run_until(|status| status.confirmed_total == 1 && status.counts.get("parked") == Some(&1));
    let status = status.await;
    let reason = status.waiting[0].reason.as_ref().unwrap();
    assert!(reason.contains("does not verify") && reason.contains(FIRST), "{reason}");
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn what_was_stored_and_never_acknowledged_is_delivered_once() {
    let site = site().await;
    site.relays.set(FIRST, Manner::BreaksOffAnswers);
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.relays.hold(FIRST, &writer.message(ROOM));
    site.run_until(confirmed(1)).await;
    assert_eq!(site.relays.left(FIRST), 1);

    let site = site.restarted().await;
    site.relays.set(FIRST, Manner::Honest);
    site.run_with(async |inbox| status_when(&inbox, |_| site.relays.left(FIRST) == 0).await).await;
    assert_eq!(distinct(&site.homeserver.transactions()), 1);
    assert_eq!(site.homeserver.transactions().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_acknowledged_that_could_not_be_stored() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let refuse = "CREATE TRIGGER full BEFORE INSERT ON inbox BEGIN SELECT raise(ABORT, 'no'); END";
    let database = &site.node.site.database;
    database.write(move |connection| connection.execute_batch(refuse)).await.unwrap();
    site.relays.hold(FIRST, &writer.message(ROOM));
    site.run_watched(async |inbox, relays| {
        let relay = FIRST.parse().unwrap();
        let failed =
            |_: &InboxStatus| relays.of(&relay).is_some_and(|relay| relay.last_error.is_some());
        status_when(&inbox, failed).await;
        assert_eq!(site.relays.left(FIRST), 1);

        let allow = "DROP TRIGGER full";
        database.write(move |connection| connection.execute_batch(allow)).await.unwrap();
        status_when(&inbox, |status| status.confirmed_total == 1 && site.relays.left(FIRST) == 0)
            .await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_differs_from_the_relays_is_corrected() {
    let site = site().await;
    site.relays.set(FIRST, Manner::ClockAhead(Duration::from_secs(3600)));
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.relays.hold(FIRST, &writer.message(ROOM));
    site.run_until(confirmed(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_knows_only_dendrites_way_is_emptied_as_well() {
    let site = site().await;
    site.relays.set(FIRST, Manner::Old);
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    for _ in 0..3 {
        site.relays.hold(FIRST, &writer.message(ROOM));
    }
    site.run_with(async |inbox| {
        status_when(&inbox, |status| status.confirmed_total == 3 && site.relays.left(FIRST) == 0)
            .await
    })
    .await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_is_added_is_collected_from_at_once_and_one_that_is_removed_no_longer() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    let added = "relay3.test";
    site.relays.hold(added, &writer.message(ROOM));
    site.run_with(async |inbox| {
        let own = site.node.site.server_name().clone();
        let relay: restante_federation_proto::ServerName = added.parse().unwrap();
        let book = &site.node.site.relays;
        book.add(own.clone(), relay.clone().into()).await.unwrap();
        status_when(&inbox, |status| status.confirmed_total == 1 && site.relays.left(added) == 0)
            .await;

        assert!(book.remove(&own, &relay).await.unwrap());
        // Until whoever collects there has heard of it.
        tokio::time::sleep(Duration::from_secs(1)).await;
        site.relays.hold(added, &writer.message(ROOM));
        let asked = site.relays.asked(added);
        tokio::time::sleep(Duration::from_secs(40)).await;
        assert_eq!(site.relays.asked(added), asked);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_gives_the_same_for_ever_is_asked_at_a_pace() {
    let site = site().await;
    site.relays.set(FIRST, Manner::Repeats);
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.relays.hold(FIRST, &writer.message(ROOM));
    site.run_with(async |inbox| {
        status_when(&inbox, confirmed(1)).await;
        let (asked, began) = (site.relays.asked(FIRST), tokio::time::Instant::now());
        status_when(&inbox, |_| began.elapsed() > Duration::from_secs(60)).await;
        assert!(site.relays.asked(FIRST) - asked < 200, "{}", site.relays.asked(FIRST));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_never_waits_for_mail_is_asked_at_a_pace() {
    let site = site().await;
    site.relays.set(FIRST, Manner::Hasty);
    site.run_with(async |inbox| {
        let began = tokio::time::Instant::now();
        status_when(&inbox, |_| began.elapsed() > Duration::from_secs(60)).await;
        assert!(site.relays.asked(FIRST) < 80, "{}", site.relays.asked(FIRST));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_defect_that_collecting_meets_does_not_end_it() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.relays.hold(FIRST, &writer.message(ROOM));
    site.relays.panic_next(4);
    site.run_until(confirmed(1)).await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

fn expired(count: u64) -> Told {
    let (since, until) = (Timestamp::from_millis(5), Timestamp::from_millis(9));
    let origin = "b.test".parse().ok();
    let line = OriginLosses { origin, full: None, count, bytes: 7, since, until };
    Told { expired: Losses { origins: vec![line] }, ..Told::default() }
}

#[tokio::test(start_paused = true)]
async fn losses_are_kept_before_the_relay_hears_that_they_are_known() {
    let site = site().await;
    let database = site.node.site.database.clone();
    let refuse = "CREATE TRIGGER full BEFORE INSERT ON losses BEGIN SELECT raise(ABORT, 'no'); END";
    database.write(move |connection| connection.execute_batch(refuse)).await.unwrap();
    site.relays.tell(FIRST, expired(3));
    site.run_with(async |inbox| {
        let began = tokio::time::Instant::now();
        status_when(&inbox, |_| began.elapsed() > Duration::from_secs(90)).await;
        assert_eq!(site.relays.heard_until(FIRST), None);
        let allow = "DROP TRIGGER full";
        database.write(move |connection| connection.execute_batch(allow)).await.unwrap();
        let heard = Some(Timestamp::from_millis(9));
        status_when(&inbox, |_| site.relays.heard_until(FIRST) == heard).await;
    })
    .await;
    let lost = losses::all(&site.node.site.database).await.unwrap();
    assert_eq!((lost.len(), lost[0].amount.count), (1, 3), "told often, counted once");
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_is_left_is_emptied_first_and_then_asked_no_more() {
    let site = site().await;
    let mut writer = Writer::new("b.test");
    site.knows(&writer).await;
    site.relays.hold(FIRST, &writer.message(ROOM));
    site.relays.hold(FIRST, &writer.message(ROOM));
    let departure = Departure {
        mail: LeftMail::Keep,
        state: DepartureState::Told,
        since: site.node.site.clock.now(),
    };
    let relay: restante_federation_proto::ServerName = FIRST.parse().unwrap();
    site.node.site.relays.depart(relay.clone(), departure).await.unwrap();
    let is_left =
        |_: &InboxStatus| site.node.site.relays.own().iter().all(|known| known.peer.name != relay);
    site.run_with(async |inbox| {
        status_when(&inbox, is_left).await;
        assert_eq!(site.relays.left(FIRST), 0);
        status_when(&inbox, |status| status.confirmed_total == 2).await;
        let asked = site.relays.asked(FIRST);
        tokio::time::sleep(Duration::from_secs(40)).await;
        assert_eq!(site.relays.asked(FIRST), asked);
    })
    .await;
    assert_eq!(site.homeserver.stored(ROOM), writer.written);
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_that_the_relays_operator_holds_is_shown_as_held() {
    let site = site().await;
    site.relays.tell(FIRST, Told { held: true, ..Told::default() });
    site.run_watched(async |inbox, relays| {
        let relay = FIRST.parse().unwrap();
        status_when(&inbox, |_| relays.of(&relay).is_some_and(|relay| relay.held)).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn after_a_sleep_of_the_machine_neither_a_pause_nor_a_dead_connection_keeps_a_relay_from_being_asked()
 {
    for manner in [Manner::Hangs, Manner::Refuses] {
        let site = site().await;
        let mut writer = Writer::new("b.test");
        site.knows(&writer).await;
        site.relays.set(FIRST, manner);
        site.relays.set(SECOND, manner);
        let second = Duration::from_secs(1);
        site.run_watched(async |inbox, status| {
            let begun = tokio::time::Instant::now();
            // A hanging request is given up some minutes later, and pauses have become as long as this.
            let beginning = if manner == Manner::Hangs { 10 * second } else { 100 * second };
            status_when(&inbox, |_| begun.elapsed() >= beginning).await;
            site.relays.hold(FIRST, &writer.message(ROOM));
            for relay in [FIRST, SECOND] {
                site.relays.set(relay, Manner::Honest);
            }
            let morning = crate::test_site::BEGINNING;
            status.comebacks().read_clocks(morning);
            status.comebacks().read_clocks(morning.after(3600 * second));
            let woken = tokio::time::Instant::now();
            status_when(&inbox, confirmed(1)).await;
            assert!(woken.elapsed() < 5 * second, "{manner:?}: {:?}", woken.elapsed());
        })
        .await;
    }
}
