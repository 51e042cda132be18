//! A changed configuration, while the relay runs.

use super::*;

#[tokio::test]
async fn a_relay_goes_by_a_changed_file_without_a_restart_and_names_what_needs_one() {
    let (relay, file) = TestRelay::start_reloadable("[mailbox]\nenvelopes_max = 1").await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    a.leave(&relay, &b, "1", &a.transaction(&relay, "one")).await.assert_ok();
    let second = a.transaction(&relay, "two");
    a.leave(&relay, &b, "2", &second).await.assert_refused(429, "M_LIMIT_EXCEEDED");
    *file.text.lock().unwrap() =
        "server_name = \"other.example\"\n[mailbox]\nenvelopes_max = 2".to_owned();
    let report = relay.operator(POST, "/reload", "").await.assert_ok();
    assert_eq!(report["applied"], json!(["mailbox.envelopes_max"]));
    assert_eq!(report["needs_restart"], json!(["server_name"]));
    assert_eq!(report["error"], Value::Null);
    a.leave(&relay, &b, "2", &second).await.assert_ok();
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_says_what_is_wrong() {
    let (relay, file) = TestRelay::start_reloadable("").await;
    *file.text.lock().unwrap() = "[mailbox]\ntime_to_live = \"soon\"".to_owned();
    let answer = relay.operator(POST, "/reload", "").await;
    answer.assert_refused(400, "M_INVALID_PARAM");
    let error = answer.json()["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("Nothing was changed") && error.contains("line 2"), "{error}");
    let relay = TestRelay::start().await;
    relay.operator(POST, "/reload", "").await.assert_refused(409, "M_UNKNOWN");
}

#[tokio::test]
async fn who_is_served_and_what_invites_say_can_change() {
    let (relay, file) = TestRelay::start_reloadable("").await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    a.leave(&relay, &b, "1", &a.transaction(&relay, "one")).await.assert_ok();
    *file.text.lock().unwrap() =
        "serve = \"invited\"\npublic_url = \"https://relay.example:443\"".to_owned();
    let report = relay.operator(POST, "/reload", "").await.assert_ok();
    assert_eq!(report["applied"], json!(["public_url", "serve"]));
    assert_eq!(relay.operator(GET, "/status", "").await.assert_ok()["serve"], "invited");
    let refused = a.leave(&relay, &b, "2", &a.transaction(&relay, "two")).await;
    refused.assert_refused(403, "M_FORBIDDEN");
    let made = relay.operator(POST, "/invites", "").await.assert_ok();
    assert!(made["line"].as_str().unwrap().contains("relay.example"));
}
