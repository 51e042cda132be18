//! af: an encrypted room of two servers that are never online together.

use restante_relay_api::WireEnvelope;
use restante_testkit::{Client, Pair, RelayProcess, Site};

use crate::{MAIL_DEADLINE, mail};

/// The type of encrypted messages, and of the to-device messages that bring their keys.
const ENCRYPTED: &str = "m.room.encrypted";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_encrypted_while_the_other_was_away_is_readable_when_its_sender_is_gone() {
    let mut pair = Pair::start().await;
    let carol = pair.a.homeserver.encrypting_client("carol").await;
    let dave = pair.b.homeserver.encrypting_client("dave").await;
    let secrets = carol.create_room(&[dave.user_id()]).await.expect("a room can be made");
    carol.encrypt_room(&secrets).await.expect("its maker may encrypt it");
    dave.wait_for_invite(&secrets, MAIL_DEADLINE).await;
    dave.join(&secrets).await.expect("an invited user can join");
    dave.wait_for_room(&secrets, MAIL_DEADLINE).await;
    tokio::join!(
        carol.wait_until_encrypted(&secrets, MAIL_DEADLINE),
        dave.wait_until_encrypted(&secrets, MAIL_DEADLINE),
    );
    // Olm sessions begin with one-time keys, which only a server that is there can hand out.
    let mut said = Vec::new();
    for (speaker, listener) in [(&carol, &dave), (&dave, &carol)] {
        speaker.send_text(&secrets, "hello").await.expect("a member may speak");
        said.push("hello".to_owned());
        listener.wait_for_texts(&secrets, said.len(), MAIL_DEADLINE).await;
    }

    pair.b.go_offline().await;
    // Each message has a room key of its own, which travels as a to-device message.
    speak(&carol, &secrets, ["question 1", "question 2", "question 3"], &mut said).await;
    wait_until_left(&pair.b, &pair.relay, 3).await;
    pair.a.go_offline().await;

    pair.b.come_online().await;
    assert_eq!(dave.wait_for_texts(&secrets, said.len(), MAIL_DEADLINE).await, said);
    speak(&dave, &secrets, ["answer 1", "answer 2", "answer 3"], &mut said).await;
    wait_until_left(&pair.a, &pair.relay, 3).await;
    pair.b.go_offline().await;

    pair.a.come_online().await;
    assert_eq!(carol.wait_for_texts(&secrets, said.len(), MAIL_DEADLINE).await, said);
}

/// `speaker` says these in `room`, each under another key.
async fn speak(speaker: &Client, room: &str, texts: [&str; 3], said: &mut Vec<String>) {
    for text in texts {
        speaker.rotate_room_key(room).await;
        speaker.send_text(room, text).await.expect("a member may speak");
        said.push(text.to_owned());
    }
}

/// Waits until so many messages and as many keys for `site` are at the relay.
async fn wait_until_left(site: &Site, relay: &RelayProcess, count: usize) {
    let are_left = |envelopes: &[WireEnvelope]| {
        let keys = mail::to_device(envelopes, ENCRYPTED).len();
        keys >= count && mail::encrypted(envelopes).len() >= count
    };
    let mailbox = site.mailbox_at(relay);
    mailbox.wait_for_envelopes("messages and keys are at the relay", MAIL_DEADLINE, are_left).await;
}
