//! f2: a stranger mints a key document and a transaction in A's name, deposited before B ever met A.

use std::collections::BTreeMap;

use restante_federation_proto::ServerName;
use restante_testkit::{Client, Site, Stranger, World, share_a_room};
use serde_json::{Value, json};

use crate::MAIL_DEADLINE;

const FORGED: &str = "test.forged";
const REAL: &str = "test.real";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strangers_mail_in_anothers_name_is_never_delivered_and_disturbs_nothing() {
    let (victim, recipient) = (server("a.test"), server("b.test"));
    let mut world = World::with_sites(&["a.test", "b.test"]);
    // The relay is misled: it takes the stranger for the victim. Its word must not count for B.
    let stranger = Stranger::posing_as(&victim).await;
    let misled = BTreeMap::from([(victim.to_string(), stranger.url())]);
    let relay = world.start_relay_with_routes("misled relay", misled).await;
    world.hold_mail_of("b.test", &relay);
    let b = world.start_site("b.test", "bob").await;

    let (status, answer) = stranger.deposit(&relay, &recipient, forgery(&b.client)).await;
    assert!(status.is_success(), "the misled relay refuses: {status} {answer}");
    wait_until_unverified(&b, &victim).await;

    // The real A turns up, and its mail comes through as ever.
    let a = world.start_site("a.test", "alice").await;
    let room = share_a_room(&a, &b).await;
    a.client.send_text(&room, "really Alice").await.expect("a member may speak");
    let read = b.client.wait_for_texts(&room, 1, MAIL_DEADLINE).await;
    assert_eq!(read, ["really Alice"]);
    a.client.send_to_device(&b.client, REAL, json!({ "n": 1 })).await.expect("Bob has a device");
    b.client.wait_for_to_device(REAL, 1, MAIL_DEADLINE).await;

    // Even after a restart, which takes everything up again from disk and relay.
    let mut b = b;
    b.go_offline().await;
    b.come_online().await;
    a.client.send_to_device(&b.client, REAL, json!({ "n": 2 })).await.expect("Bob has a device");
    b.client.wait_for_to_device(REAL, 2, MAIL_DEADLINE).await;
    let forged = b.client.wait_for_to_device(FORGED, 0, MAIL_DEADLINE).await;
    assert!(forged.is_empty(), "the stranger's message was delivered: {forged:?}");
}

fn server(name: &str) -> ServerName {
    name.parse().expect("it is a server name")
}

/// A to-device message: the EDU that no signature of its own protects.
fn forgery(victim_of_it: &Client) -> Value {
    json!({ "edu_type": "m.direct_to_device", "content": {
        "sender": "@alice:a.test",
        "type": FORGED,
        "message_id": "forged",
        "messages": { victim_of_it.user_id(): { "*": { "n": 0 } } },
    }})
}

async fn wait_until_unverified(site: &Site, origin: &ServerName) {
    let what = "the stranger's mail is shown as unverified first contact";
    site.node
        .wait_for_status(what, MAIL_DEADLINE, |status| {
            let waiting = status["inbox"]["waiting"].as_array()?;
            let mut entries = waiting.iter().filter(|entry| entry["origin"] == origin.as_str());
            entries.find(|entry| entry["state"] == "unverified_first_contact").map(|_| ())
        })
        .await;
}
