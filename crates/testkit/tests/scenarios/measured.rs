//! What is measured with real homeservers: `cargo xtask bench visible`, `bytes` and `intake`.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::StatusCode;
use restante_relay_api::WireEnvelope;
use restante_testkit::{Client, Link, Pair, RelayAddress, Site, World, share_a_room};
use serde_json::Value;

use crate::{BULK_DEADLINE, MAIL_DEADLINE, numbered};

/// Messages of one measurement.
const MESSAGES: usize = 100;

/// Messages of one turn of the intake, and those of them that are not timed: by then it is under way.
const TAKEN: usize = 400;
const UNDER_WAY: usize = 50;

/// Events that are on their way into the homeserver at most when they are given to it directly: it stages 100 of a room, and
/// fetches what is beyond as history, which clients don't show as new.
const STAGED: usize = 80;

/// Between two looks at what is visible: a look is a request of its own to the homeserver that is measured.
const LOOK: Duration = Duration::from_millis(100);

/// A machine that is busy beside slows both halves of a turn down, and is no failure.
const TURN_DEADLINE: Duration = Duration::from_secs(900);

/// Turns of the intake, each in a world of its own.
const TURNS: usize = 4;

/// A letter or two, as people write.
const TEXT: &str = "We leave the harbour at six with the tide and should be with you by Thursday, weather permitting; \
                    please have the spare pump on the quay, and tell Maria that the letters are in the blue bag.";

/// How long it takes from the moment at which the relay has a message until the recipient's homeserver shows it, while the
/// recipient's node waits at the relay and nobody reaches it directly.
#[ignore = "a measurement: cargo xtask bench visible"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn measured_visible() {
    let mut pair = Pair::start().await;
    pair.b.link.cut().await;
    // The first ones find out that B can't be reached.
    for text in numbered("before", 3) {
        let event = pair.a.client.send_text(&pair.room, &text).await.expect("a member may speak");
        until_visible(&pair, &event).await;
    }
    let before = deposited_at(&pair.relay.log()).len();
    let mut visible_at = Vec::new();
    for number in 0..MESSAGES {
        let text = format!("{number}: {TEXT}");
        let event = pair.a.client.send_text(&pair.room, &text).await.expect("a member may speak");
        until_visible(&pair, &event).await;
        visible_at.push(now());
    }
    let deposited_at = deposited_at(&pair.relay.log()).split_off(before);
    assert_eq!(deposited_at.len(), MESSAGES, "each message was a deposit of its own");
    let took = deposited_at.iter().zip(&visible_at);
    let mut took: Vec<f64> = took.map(|(from, until)| (until - from) * 1000.0).collect();
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took[(share * (MESSAGES - 1) as f64).round() as usize];
    println!(
        "deposit to visible, {MESSAGES} messages: median {:.0} ms, 90th {:.0} ms, 99th {:.0} ms, longest {:.0} ms",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
}

/// How many bytes a message costs, left at one, two and three relays and collected from them.
#[ignore = "a measurement: cargo xtask bench bytes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn measured_bytes() {
    for relays in 1..=3 {
        let (left, collected) = bytes_with(relays).await;
        let per_message = |bytes: u64| bytes as f64 / MESSAGES as f64;
        println!(
            "{relays} relays: {:.0} bytes a message left, {:.0} collected ({} bytes of text)",
            per_message(left),
            per_message(collected),
            TEXT.len()
        );
    }
}

/// Bytes over the links to all relays while messages are left, and while they are collected.
async fn bytes_with(count: usize) -> (u64, u64) {
    let mut world = World::with_sites(&["a.test", "b.test"]);
    let (mut relays, mut links) = (Vec::new(), Vec::new());
    for number in 0..count {
        let relay = world.start_relay(&format!("relay {number}")).await;
        let target = relay.address().url.trim_start_matches("http://").to_owned();
        let mut link = Link::to(target);
        link.restore().await;
        let address = RelayAddress { server_name: relay.server_name().clone(), url: link.url() };
        world.hold_mail_of_at("b.test", address);
        relays.push(relay);
        links.push(link);
    }
    let a = world.start_site("a.test", "alice").await;
    let mut b = world.start_site("b.test", "bob").await;
    let room = share_a_room(&a, &b).await;
    b.go_offline().await;
    let bytes = || links.iter().map(Link::bytes).sum::<u64>();

    let before = bytes();
    for number in 0..MESSAGES {
        let text = format!("{number}: {TEXT}");
        a.client.send_text(&room, &text).await.expect("a member may speak");
    }
    for relay in &relays {
        b.mailbox_at(relay).wait_for_texts(MESSAGES, BULK_DEADLINE).await;
    }
    let left = bytes() - before;

    let before = bytes();
    b.come_online().await;
    b.client.wait_for_texts(&room, MESSAGES, BULK_DEADLINE).await;
    for relay in &relays {
        b.mailbox_at(relay).wait_until_empty(MAIL_DEADLINE).await;
    }
    (left, bytes() - before)
}

/// How fast a homeserver takes what its node collected, beside how fast it takes the same from its origin directly. The origin
/// is online all the time.
#[ignore = "a measurement: cargo xtask bench intake"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn measured_intake() {
    let mut rates = Vec::new();
    for turn in 1..=TURNS {
        let mut pair = Pair::start().await;
        pair.b.link.cut().await;
        // A homeserver is slower at first than a minute later.
        let (by_node, directly) = if turn % 2 == 1 {
            let by_node = taken_by_node(&mut pair).await;
            (by_node, taken_directly(&mut pair).await)
        } else {
            let directly = taken_directly(&mut pair).await;
            (taken_by_node(&mut pair).await, directly)
        };
        println!("turn {turn}: {by_node:.1} messages/s by the node, {directly:.1} directly");
        rates.push((by_node, directly));
    }
    let mean = |of: fn(&(f64, f64)) -> f64| rates.iter().map(of).sum::<f64>() / TURNS as f64;
    let (by_node, directly) = (mean(|rates| rates.0), mean(|rates| rates.1));
    println!(
        "mean of {TURNS} turns: {by_node:.1} messages/s by the node, {directly:.1} directly: {:.0} %",
        100.0 * by_node / directly
    );
}

/// How many messages a second become visible to Bob while his node hands over what it collects.
async fn taken_by_node(pair: &mut Pair) -> f64 {
    pair.b.node.stop().await;
    let events = left_for_bob(pair, "for the node").await;
    let Site { node, client, .. } = &mut pair.b;
    let visible = rate_of(client, &pair.room, &events);
    let ((), rate) = tokio::join!(node.start_again(), visible);
    pair.b.mailbox_at(&pair.relay).wait_until_empty(TURN_DEADLINE).await;
    rate
}

/// The same while his homeserver is given the same kind of transactions as their origin signed them.
async fn taken_directly(pair: &mut Pair) -> f64 {
    pair.b.node.stop().await;
    let events = left_for_bob(pair, "directly").await;
    let envelopes = pair.b.mailbox_at(&pair.relay).envelopes().await;
    // The node is there for what the homeserver asks the origin, and has nothing to hand over.
    pair.relay.stop().await;
    pair.b.node.start_again().await;
    let rate = rate_of_direct(pair, &envelopes, &events).await;
    pair.b.node.stop().await;
    pair.relay.start_again().await;
    pair.b.mailbox_at(&pair.relay).acknowledge(&envelopes).await;
    rate
}

/// Alice sends while nobody takes anything in at Bob's site; the events, all of which are at the relay.
async fn left_for_bob(pair: &Pair, what: &str) -> Vec<String> {
    let mut events = Vec::new();
    for text in numbered(what, TAKEN) {
        events.push(pair.a.client.send_text(&pair.room, &text).await.expect("a member may speak"));
    }
    pair.b.mailbox_at(&pair.relay).wait_for_texts(TAKEN, TURN_DEADLINE).await;
    events
}

/// How many of these a second become visible to Bob.
async fn rate_of(bob: &Client, room: &str, events: &[String]) -> f64 {
    let mut rate = Rate::default();
    while rate.visible < events.len() {
        rate.look(bob, room, events).await;
    }
    rate.per_second()
}

/// The same, while `envelopes` are given to his homeserver, as many at a time as it takes in.
async fn rate_of_direct(pair: &Pair, envelopes: &[WireEnvelope], events: &[String]) -> f64 {
    let (mut rate, mut sent) = (Rate::default(), 0);
    for envelope in envelopes {
        let content: Value = serde_json::from_slice(&envelope.content).expect("a relay gives JSON");
        let pdus = content["pdus"].as_array().map_or(0, Vec::len);
        while sent + pdus > rate.visible + STAGED {
            rate.look(&pair.b.client, &pair.room, events).await;
        }
        assert_eq!(pair.b.homeserver.take_directly(envelope).await, StatusCode::OK);
        sent += pdus;
    }
    while rate.visible < events.len() {
        rate.look(&pair.b.client, &pair.room, events).await;
    }
    rate.per_second()
}

/// How fast events become visible, in their order.
#[derive(Default)]
struct Rate {
    /// How many are.
    visible: usize,
    /// How many were when it was found that it is under way, and when.
    begun: Option<(usize, Instant)>,
    ended: Option<Instant>,
}

impl Rate {
    /// Waits for a moment and looks how many are visible.
    async fn look(&mut self, bob: &Client, room: &str, events: &[String]) {
        let since = self.ended.unwrap_or_else(Instant::now);
        assert!(
            since.elapsed() < TURN_DEADLINE,
            "{} of {} are visible",
            self.visible,
            events.len()
        );
        tokio::time::sleep(LOOK).await;
        while let Some(event) = events.get(self.visible)
            && bob.has_event(room, event).await
        {
            self.visible += 1;
            self.ended = Some(Instant::now());
        }
        if self.visible >= UNDER_WAY {
            self.begun = self.begun.or(self.ended.map(|at| (self.visible, at)));
        }
    }

    fn per_second(&self) -> f64 {
        let ((visible, begun), ended) =
            (self.begun.expect("it began"), self.ended.expect("it ended"));
        (self.visible - visible) as f64 / ended.saturating_duration_since(begun).as_secs_f64()
    }
}

async fn until_visible(pair: &Pair, event: &str) {
    let end = tokio::time::Instant::now() + MAIL_DEADLINE;
    while !pair.b.client.has_event(&pair.room, event).await {
        assert!(tokio::time::Instant::now() < end, "{event} is not visible");
    }
}

/// The logs bear the time of the machine.
#[allow(clippy::disallowed_methods)]
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}

/// When the relay took each deposit for B, seconds of the present day's clock in its log turned into those of the epoch.
fn deposited_at(log: &str) -> Vec<f64> {
    let day = (now() / 86_400.0).floor() * 86_400.0;
    let lines =
        log.lines().filter(|line| line.contains("mailbox=b.test") && line.contains("stored"));
    let time = |line: &str| {
        let clock = line.split('T').nth(1)?.split('Z').next()?.to_owned();
        let mut parts = clock.split(':').map(|part| part.parse::<f64>().ok());
        let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
        Some(day + hours * 3600.0 + minutes * 60.0 + seconds)
    };
    lines.filter_map(time).collect()
}
