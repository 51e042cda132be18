//! What a restart keeps.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use restante_federation_proto::{Clock as _, SystemClock};
use restante_relay::{Relay, RelayConfig};
use restante_relay_api::endpoints::MAILBOX;
use restante_relay_api::{LeaveRequest, LeftMail};
use tokio_util::sync::CancellationToken;

use crate::harness::{TestRelay, TestServer, collect_all, texts};

#[tokio::test]
async fn a_second_start_finds_name_key_and_mail_again() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    a.leave(&relay, &b, "t", &a.transaction(&relay, "kept")).await.assert_ok();
    let name = relay.name().clone();
    let relay = relay.restart().await;
    assert_eq!(*relay.name(), name);
    assert_eq!(texts(&b.collect(&relay, &collect_all(&relay)).await), ["kept"]);
}

#[tokio::test]
async fn what_was_signed_before_a_restart_changes_no_registration_after_it() {
    let relay = TestRelay::start().await;
    let b = TestServer::new(2);
    let registration = b.registration(&relay);
    b.register(&relay, &registration).await.assert_ok();
    relay.clock.advance(Duration::from_secs(1));
    let leave = LeaveRequest { mail: LeftMail::Drop, signed_at: relay.clock.now() };
    let leave = String::from_utf8(leave.to_canonical_json()).unwrap();
    b.call(&relay, Method::DELETE, MAILBOX, &leave).await.assert_ok();

    relay.clock.advance(Duration::from_secs(1));
    let relay = relay.restart().await;

    for replayed in [
        b.register(&relay, &registration).await,
        b.call(&relay, Method::DELETE, MAILBOX, &leave).await,
    ] {
        replayed.assert_refused(403, "M_FORBIDDEN");
        assert_eq!(replayed.json()["now"], relay.clock.now().as_millis());
    }
    // Signed anew, by the time that the refusal tells.
    b.register(&relay, &b.registration(&relay)).await.assert_ok();
}

#[tokio::test]
async fn the_data_is_its_owners_alone() {
    let relay = TestRelay::start().await;
    let folder = relay.data().join("data");
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(folder.clone()), 0o700);
    for file in ["signing.key", "relay.sqlite", "keys.sqlite"] {
        assert_eq!(mode(folder.join(file)), 0o600, "{file}");
    }
}

#[tokio::test]
async fn a_port_in_use_an_unusable_folder_and_a_second_relay_are_told_in_one_sentence() {
    let relay = TestRelay::start().await;
    let start = async |config: RelayConfig| {
        let Err(error) =
            Relay::start(config, Arc::new(SystemClock), CancellationToken::new()).await
        else {
            panic!("it started")
        };
        error.to_string()
    };
    let url = relay.peer.url.clone().unwrap();
    let other = tempfile::tempdir().unwrap();
    let in_use = RelayConfig {
        listen: ([127, 0, 0, 1], url.port).into(),
        data: other.path().join("data"),
        ..RelayConfig::default()
    };
    assert!(start(in_use).await.starts_with("cannot listen on 127.0.0.1:"));
    fs::write(other.path().join("file"), "").unwrap();
    let no_folder = RelayConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        data: other.path().join("file"),
        ..RelayConfig::default()
    };
    assert!(start(no_folder).await.starts_with("cannot create the data folder"));
    let twice = RelayConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        data: relay.data().join("data"),
        ..RelayConfig::default()
    };
    assert!(start(twice).await.contains("in use by another process"));
}
