//! x: the keys that B knows of A have expired when the mail comes, and no document that lasts as long as mail came along.

use std::time::Duration;

use restante_federation_proto::{Clock as _, SystemClock, mint};
use restante_relay_api::endpoints::{COLLECT, KEY_SERVER, KEYS_MEMBER};
use restante_testkit::{Meddler, RelayProcess, Site, World, eventually, share_a_room};
use serde_json::{Value, json};

use crate::mail::{has_to_device, to_device_txn_id};
use crate::{MAIL_DEADLINE, numbered};

const NOTE: &str = "test.note";

/// Key documents of a homeserver are valid for a day.
const DAY: Duration = Duration::from_secs(24 * 3600);
const TEN_DAYS: Duration = Duration::from_secs(10 * 24 * 3600);

/// Longer than a node waits for a key before it takes mail apart.
const KEYLESS_WAIT: Duration = Duration::from_secs(16 * 60);

/// Whoever is offline is looked for once in this time.
const PROBE_INTERVAL: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_under_an_expired_key_is_taken_apart_and_what_is_left_comes_once_the_key_is_renewed() {
    let Ground { mut a, mut b, relay, miser, _thief, _world } = Ground::prepare().await;
    let room = share_a_room(&a, &b).await;
    let texts = numbered("message", 3);
    b.go_offline().await;
    for text in &texts {
        a.client.send_text(&room, text).await.expect("a member may speak");
    }
    let sent = a.client.send_to_device(&b.client, NOTE, json!({ "n": 1 })).await;
    sent.expect("Bob has a device");
    let mailbox = b.mailbox_at(&relay);
    mailbox.wait_for_texts(texts.len(), MAIL_DEADLINE).await;
    let is_note = |transaction: &Value| has_to_device(transaction, NOTE);
    mailbox.wait_for_envelope("the note is at the relay", MAIL_DEADLINE, is_note).await;
    let note = mailbox.envelopes().await;
    let note = to_device_txn_id(&note, NOTE);
    a.go_offline().await;

    b.set_clock_ahead(TEN_DAYS);
    b.come_online().await;
    wait_until_the_homeserver_has_no_valid_key(&b).await;
    b.node.let_time_pass(KEYLESS_WAIT);
    let read = b.client.wait_for_texts(&room, texts.len(), MAIL_DEADLINE).await;
    assert_eq!(read, texts);
    wait_until_parked(&b, &note).await;
    assert!(b.client.to_device().await.is_empty(), "what nothing proves was delivered");

    // A is back, and shows a document that outlasts its mail.
    miser.behave();
    a.come_online().await;
    b.node.let_time_pass(PROBE_INTERVAL);
    eventually("B's node knows that A is back", MAIL_DEADLINE, async || {
        b.client.display_name(a.client.user_id()).await.ok()
    })
    .await;
    b.node.retry_parked().await;
    assert_eq!(b.client.wait_for_to_device(NOTE, 1, MAIL_DEADLINE).await.len(), 1);
    eventually("nothing is parked any more", MAIL_DEADLINE, async || {
        b.node.parked().await.is_empty().then_some(())
    })
    .await;
    assert_eq!(b.client.texts(&room).await, texts, "nothing arrives twice");
    assert_eq!(b.homeserver.rejected_events(), 0);
}

/// A and B as ever, but for what becomes of A's keys on their way to B.
struct Ground {
    a: Site,
    b: Site,
    relay: RelayProcess,
    /// Shows those who ask A a document that lasts for a day, until it behaves.
    miser: Meddler,
    /// Takes the document out of A's mail.
    _thief: Meddler,
    _world: World,
}

impl Ground {
    async fn prepare() -> Self {
        let mut world = World::with_sites(&["a.test", "b.test"]);
        let relay = world.start_relay("relay").await;
        let thief = Meddler::in_front_of(relay.address().url).await;
        world.hold_mail_of("a.test", &relay);
        world.hold_mail_of_at("b.test", thief.address_of(&relay));
        thief.alter(COLLECT, |answer| {
            for envelope in answer["envelopes"].as_array_mut().into_iter().flatten() {
                envelope.as_object_mut().map(|envelope| envelope.remove(KEYS_MEMBER));
            }
        });
        let a = world.start_site("a.test", "alice").await;
        let miser = Meddler::in_front_of(world.route_to("a.test")).await;
        world.lead_to("a.test", miser.url());
        let (server, key) = (a.homeserver.server_name(), a.homeserver.signing_key());
        let short_lived = mint(server, key, None, SystemClock.now().after(DAY));
        let short_lived: Value =
            serde_json::from_slice(short_lived.raw()).expect("a key document is JSON");
        miser.alter(KEY_SERVER, move |answer| *answer = short_lived.clone());
        let b = world.start_site("b.test", "bob").await;
        Self { a, b, relay, miser, _thief: thief, _world: world }
    }
}

async fn wait_until_the_homeserver_has_no_valid_key(site: &Site) {
    let what = "the status says that the homeserver does not believe A's signature";
    site.node
        .wait_for_status(what, MAIL_DEADLINE, |status| {
            let waiting = status["inbox"]["waiting"].as_array()?;
            let mut reasons = waiting.iter().filter_map(|entry| entry["reason"].as_str());
            reasons.find(|reason| reason.contains("401")).map(|_| ())
        })
        .await;
}

/// The operator is told why the mail `txn_id` was not delivered whole.
async fn wait_until_parked(site: &Site, txn_id: &str) {
    let what = format!("the mail {txn_id} is parked for want of a key");
    eventually(&what, MAIL_DEADLINE, async || {
        let parked = site.node.parked().await;
        let entry = parked.iter().find(|entry| entry["txn_id"] == txn_id)?;
        let reason = entry["reason"].as_str()?;
        let is_said = ["no valid key", "EDUs"].iter().all(|words| reason.contains(words));
        is_said.then_some(())
    })
    .await;
}
