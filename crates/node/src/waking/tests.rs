//! Whom a node wakes when it is back, over scripted servers in virtual time.

use restante_federation_proto::{Clock, Timestamp, XMatrix};
use restante_relay_api::Queued;

use super::*;
use crate::config::InboxSection;
use crate::inbox::InboxSettings;
use crate::relay_records::hearsay::Meeting;
use crate::retriever::{RelayStatus, RetrieverStatus};
use crate::test_site::{BEGINNING, Reply, TestSite, name};

const NO_KEYS: Reply = Reply::Json(200, r#"{"device_keys":{}}"#);

/// Notes that these were met an hour before the node starts.
async fn met(site: &TestSite, servers: &[&str]) {
    for server in servers {
        let (server, at) = (name(server), BEGINNING.before(Duration::from_secs(3600)));
        let noted = site.database.write(move |connection| {
            correspondents::note(connection, &server, (Meeting::Answered, at))
        });
        noted.await.unwrap();
    }
}

/// Runs the waking beside `work`; the own homeserver is up.
async fn wake_beside(site: &TestSite, wakes: bool, work: impl AsyncFnOnce(Inbox, RetrieverStatus)) {
    site.own_homeserver.answer(site.server_name(), Reply::Json(200, "{}"));
    run_beside(site, wakes, work).await;
}

async fn run_beside(site: &TestSite, wakes: bool, work: impl AsyncFnOnce(Inbox, RetrieverStatus)) {
    let settings = InboxSettings::from(InboxSection::default());
    let inbox = Inbox::open(site.site.clone(), settings).await.unwrap();
    let (retriever, stop) = (RetrieverStatus::default(), CancellationToken::new());
    let comebacks = retriever.comebacks().clone();
    let waking = run(site.site.clone(), inbox.clone(), wakes.into(), comebacks, stop.clone());
    let working = async {
        work(inbox, retriever).await;
        stop.cancel();
    };
    site.run(async { tokio::join!(waking, working) }).await;
}

async fn wake_for(site: &TestSite, time: Duration) {
    wake_beside(site, true, async |_, _| sleep(time).await).await;
}

fn answers_again(retriever: &RetrieverStatus) {
    let queued = Queued { count: 0, bytes: 0, oldest_at: None };
    let status = RelayStatus { queued: Some(queued), ..RelayStatus::default() };
    retriever.answered(&name("relay.test"), status);
}

#[tokio::test(start_paused = true)]
async fn each_server_that_was_met_gets_one_signed_request_when_the_node_starts() {
    let site = TestSite::new().await;
    met(&site, &["b.test", "c.test"]).await;
    for server in ["b.test", "c.test", "stranger.test"] {
        site.exchange.answer(&name(server), NO_KEYS);
    }
    wake_for(&site, Duration::from_secs(60)).await;
    let seen = site.exchange.seen();
    assert_eq!(seen.len(), 2, "{seen:?}");
    for request in seen {
        assert_eq!((request.method, request.target.as_str()), (Method::POST, QUESTION));
        let authorization = request.headers["authorization"].to_str().unwrap();
        let header: XMatrix = authorization.parse().unwrap();
        assert_eq!(header.origin, *site.server_name());
        assert_eq!(header.destination, Some(request.server));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_wakes_as_well_and_who_is_not_reached_is_tried_a_few_times() {
    let site = TestSite::new().await;
    met(&site, &["refuses.test", "down.test", "late.test"]).await;
    site.exchange.answer(&name("refuses.test"), Reply::Json(403, r#"{"errcode":"M_FORBIDDEN"}"#));
    site.exchange.script(&name("late.test"), [Reply::Refused, NO_KEYS]);
    wake_for(&site, Duration::from_secs(600)).await;
    let asked = |server| site.exchange.targets_of(&name(server)).len();
    assert_eq!((asked("refuses.test"), asked("late.test"), asked("down.test")), (1, 2, 4));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_woken_before_the_own_homeserver_answers() {
    let site = TestSite::new().await;
    met(&site, &["b.test", "called.test"]).await;
    for server in ["b.test", "called.test"] {
        site.exchange.answer(&name(server), NO_KEYS);
    }
    let own = |reply| site.own_homeserver.answer(site.server_name(), reply);
    own(Reply::Refused);
    run_beside(&site, true, async |_, _| {
        sleep(Duration::from_secs(60)).await;
        own(Reply::Json(503, "{}"));
        sleep(Duration::from_secs(60)).await;
        assert_eq!(site.exchange.seen().len(), 0);
        // Whoever called meanwhile found it away.
        let (called, at) = (name("called.test"), site.clock.now());
        let noted = site.database.write(move |connection| {
            correspondents::note(connection, &called, (Meeting::Called, at))
        });
        noted.await.unwrap();
        site.clock.advance(Duration::from_millis(1));
        own(Reply::Json(200, "{}"));
        sleep(Duration::from_secs(15)).await;
    })
    .await;
    let asked = |server| site.exchange.targets_of(&name(server));
    assert_eq!(
        (asked("b.test"), asked("called.test")),
        (vec![QUESTION.into()], vec![QUESTION.into()])
    );
}

#[tokio::test(start_paused = true)]
async fn many_servers_are_not_asked_all_at_once() {
    let site = TestSite::new().await;
    let servers: Vec<String> = (0..40).map(|n| format!("s{n}.test")).collect();
    met(&site, &servers.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for server in &servers {
        site.exchange.answer(&name(server), NO_KEYS);
    }
    wake_for(&site, Duration::from_secs(1)).await;
    let asked = site.exchange.seen().len();
    assert!((8..=24).contains(&asked), "{asked}");
}

/// How often b.test, which was met before, is woken when the relays answer after two minutes, in which `meanwhile` happens.
async fn woken_after_a_silence(meanwhile: impl AsyncFnOnce(&TestSite)) -> usize {
    let site = TestSite::new().await;
    site.exchange.answer(&name("b.test"), NO_KEYS);
    wake_beside(&site, true, async |_, retriever| {
        // Nobody is known yet who could be told of the start.
        sleep(Duration::from_secs(5)).await;
        met(&site, &["b.test"]).await;
        retriever.unreached(&name("relay.test"), "connection refused");
        sleep(Duration::from_secs(130)).await;
        meanwhile(&site).await;
        answers_again(&retriever);
        sleep(Duration::from_secs(5)).await;
    })
    .await;
    site.exchange.targets_of(&name("b.test")).len()
}

#[tokio::test(start_paused = true)]
async fn all_are_woken_when_relays_answer_after_a_long_silence() {
    assert_eq!(woken_after_a_silence(async |_| {}).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_was_down_while_others_answered_wakes_nobody() {
    let answered = async |site: &TestSite| site.destinations.answered(&name("c.test")).await;
    assert_eq!(woken_after_a_silence(answered).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_was_down_at_the_start_cuts_the_telling_of_it_not_short() {
    let site = TestSite::new().await;
    met(&site, &["b.test", "c.test"]).await;
    site.exchange.answer(&name("c.test"), NO_KEYS);
    wake_beside(&site, true, async |_, retriever| {
        retriever.unreached(&name("relay.test"), "connection refused");
        sleep(Duration::from_secs(130)).await;
        answers_again(&retriever);
        site.exchange.answer(&name("b.test"), NO_KEYS);
        sleep(Duration::from_secs(400)).await;
    })
    .await;
    let asked = site.exchange.targets_of(&name("b.test")).len();
    assert_eq!((asked, site.exchange.targets_of(&name("c.test")).len()), (4, 1));
}

#[tokio::test(start_paused = true)]
async fn who_could_not_be_told_while_the_line_was_down_is_told_at_once_when_it_is_back() {
    let site = TestSite::new().await;
    met(&site, &["b.test"]).await;
    wake_beside(&site, true, async |_, retriever| {
        retriever.unreached(&name("relay.test"), "connection refused");
        sleep(Duration::from_secs(130)).await;
        let asked = || site.exchange.targets_of(&name("b.test")).len();
        let in_vain = asked();
        site.exchange.answer(&name("b.test"), NO_KEYS);
        answers_again(&retriever);
        sleep(Duration::from_secs(5)).await;
        assert_eq!(asked(), in_vain + 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn after_a_sleep_of_the_machine_relays_are_asked_at_once_and_others_woken() {
    let site = TestSite::new().await;
    met(&site, &["b.test"]).await;
    site.exchange.answer(&name("b.test"), NO_KEYS);
    wake_beside(&site, true, async |inbox, _| {
        sleep(Duration::from_secs(60)).await;
        let mut relays = inbox.relays_wanted();
        site.clock.advance(Duration::from_secs(3 * 3600));
        assert!(!relays.was_said());
        sleep(Duration::from_secs(60)).await;
        assert!(relays.was_said());
    })
    .await;
    assert_eq!(site.exchange.targets_of(&name("b.test")).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_operator_may_come_back_unannounced() {
    let site = TestSite::new().await;
    met(&site, &["b.test"]).await;
    wake_beside(&site, false, async |_, _| sleep(Duration::from_secs(60)).await).await;
    assert_eq!(site.exchange.seen().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_met_is_remembered_over_a_restart() {
    let site = TestSite::new().await;
    let stop = CancellationToken::new();
    let records = site.records();
    site.run(async {
        let learning = records.run(stop.clone());
        let meeting = async {
            site.hearsay.met(&name("b.test"), Meeting::Called);
            sleep(Duration::from_secs(10)).await;
            stop.cancel();
        };
        tokio::join!(learning, meeting)
    })
    .await;
    site.clock.advance(Duration::from_secs(60));
    let site = site.restarted().await;
    let seen_before = site.exchange.targets_of(&name("b.test")).len();
    site.exchange.answer(&name("b.test"), NO_KEYS);
    wake_for(&site, Duration::from_secs(10)).await;
    let targets = site.exchange.targets_of(&name("b.test"));
    assert_eq!(targets[seen_before..], [QUESTION]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_starts_again_and_again_tells_it_once_in_a_while() {
    let mut site = TestSite::new().await;
    met(&site, &["b.test"]).await;
    site.exchange.answer(&name("b.test"), NO_KEYS);
    for _ in 0..3 {
        wake_for(&site, Duration::from_secs(10)).await;
        site = site.restarted().await;
    }
    assert_eq!(site.exchange.targets_of(&name("b.test")).len(), 1);
    site.clock.advance(Duration::from_secs(15 * 60));
    wake_for(&site, Duration::from_secs(10)).await;
    assert_eq!(site.exchange.targets_of(&name("b.test")).len(), 2);
}

#[tokio::test]
async fn strangers_who_call_push_out_nobody_who_answered() {
    let site = TestSite::new().await;
    let names = site.database.write(|connection| {
        let at = Timestamp::from_millis;
        correspondents::note(connection, &name("b.test"), (Meeting::Answered, at(1)))?;
        for n in 0..1500 {
            let server = name(&format!("s{n}.test"));
            correspondents::note(connection, &server, (Meeting::Called, at(2 + n)))?;
        }
        correspondents::met_since(connection, at(0), 10_000)
    });
    let names: Vec<_> = names.await.unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!((names.len(), &names[0], &names[1]), (1025, &name("b.test"), &name("s1499.test")));
}
