//! What monitors see.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use restante_federation_proto::{ServerName, Timestamp};
use restante_mailbox::{
    Acknowledged, Acknowledgement, Collected, Deposit, Deposited, Depth, Due, EntryId, Expired,
    Loss, MailboxStore, MailboxSummary, MemoryStore, Page, Quotas, StoreError,
};
use restante_relay::Stores;

use super::*;
use crate::harness::acknowledge_all;

async fn metrics(relay: &TestRelay) -> String {
    let answer = relay.at_operators(GET, "/metrics", "", "").await;
    assert_eq!(answer.status, 200);
    String::from_utf8(answer.body.to_vec()).unwrap()
}

#[track_caller]
fn assert_counted(metrics: &str, line: &str) {
    assert!(metrics.lines().any(|found| found == line), "no {line} in {metrics}");
}

#[tokio::test]
async fn what_happens_to_mail_is_counted() {
    let (relay, [a, _, c]) = relay_with_mail().await;
    a.leave(&relay, &c, "1", &a.transaction(&relay, "one")).await.assert_ok();
    let collected = c.collect(&relay, &collect_all(&relay)).await;
    let acknowledge = acknowledge_all(&collected);
    let request = restante_relay_api::CollectRequest { acknowledge, ..collect_all(&relay) };
    c.collect(&relay, &request).await;
    let metrics = metrics(&relay).await;
    for line in [
        "restante_relay_deposits_total{outcome=\"stored\"} 3",
        "restante_relay_deposits_total{outcome=\"duplicate\"} 1",
        "restante_relay_deposits_total{outcome=\"mailbox_full\"} 0",
        "restante_relay_collects_total 2",
        "restante_relay_collected_total 3",
        "restante_relay_acknowledged_total 3",
        "restante_relay_envelopes 0",
        "restante_relay_mailboxes 1",
        "restante_relay_waiting_collects 0",
        "restante_relay_disk_low 0",
    ] {
        assert_counted(&metrics, line);
    }
}

#[tokio::test]
async fn refusals_are_counted_by_reason_and_strangers_choose_no_label() {
    let relay = TestRelay::start_with("[mailbox]\nenvelopes_max = 1").await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    a.leave(&relay, &b, "1", &a.transaction(&relay, "one")).await.assert_ok();
    let full = a.leave(&relay, &b, "2", &a.transaction(&relay, "two")).await;
    full.assert_refused(429, "M_LIMIT_EXCEEDED");
    relay.plain(GET, "/stranger/chosen", "").await.assert_refused(404, "M_UNRECOGNIZED");
    let target = "/_matrix/federation/v1/send_relay/chosen/%40stranger%3Achosen.example";
    relay.plain(Method::PUT, target, "{}").await.assert_refused(401, "M_UNAUTHORIZED");
    let metrics = metrics(&relay).await;
    for line in [
        "restante_relay_refused_total{reason=\"full\"} 1",
        "restante_relay_refused_total{reason=\"not_found\"} 1",
        "restante_relay_refused_total{reason=\"unauthorized\"} 1",
        "restante_relay_deposits_total{outcome=\"mailbox_full\"} 1",
    ] {
        assert_counted(&metrics, line);
    }
    let route = "route=\"/_matrix/federation/v1/send_relay/{txn_id}/{user_id}\"";
    assert!(metrics.contains(route), "{metrics}");
    for chosen in ["chosen", a.name().as_str(), b.name().as_str()] {
        assert!(!metrics.contains(chosen), "{chosen} in {metrics}");
    }
}

/// The metrics that the dashboard names.
fn dashboard(prefix: &str) -> BTreeSet<String> {
    let dashboard = include_str!("../../../../../contrib/grafana/restante.json");
    let words = dashboard.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    words.filter(|word| word.starts_with(prefix)).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_dashboard_shows_what_a_relay_exports_and_nothing_else() {
    let (relay, _) = relay_with_mail().await;
    let metrics = metrics(&relay).await;
    let exported: BTreeSet<String> = metrics
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(['{', ' ']).next().unwrap().to_owned())
        .collect();
    let shown = dashboard("restante_relay_");
    assert!(shown.is_subset(&exported), "{:?}", shown.difference(&exported));
    let is_shown = |name: &&String| {
        shown.contains(*name) || name.contains("_duration_seconds_") || name.starts_with("process_")
    };
    let unseen: Vec<_> = exported.iter().filter(|name| !is_shown(name)).collect();
    assert!(unseen.is_empty(), "{unseen:?}");
}

#[tokio::test]
async fn a_relay_with_a_low_disk_is_alive_and_says_why_it_is_not_ready() {
    let relay = TestRelay::start_with("[storage]\nfree_disk_bytes_min = 9000000000000000000").await;
    relay.at_operators(GET, "/health", "", "").await.assert_ok();
    let answer = relay.at_operators(GET, "/ready", "", "").await;
    assert_eq!(answer.status, 503);
    let report = answer.json();
    assert_eq!(report["not_met"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(report["not_met"][0]["condition"], "disk");
    let what_to_do = report["not_met"][0]["what_to_do"].as_str().unwrap();
    assert!(what_to_do.contains("storage.free_disk_bytes_min"), "{what_to_do}");
    assert_counted(&metrics(&relay).await, "restante_relay_disk_low 1");
    let healthy = TestRelay::start().await;
    assert_eq!(healthy.at_operators(GET, "/ready", "", "").await.assert_ok()["ready"], true);
}

#[tokio::test]
async fn a_relay_whose_store_fails_is_alive_and_names_storage_with_what_to_do() {
    let stores =
        Stores { mail: Arc::new(FailingStore), ..Stores::of(Arc::new(MemoryStore::new())) };
    let relay = TestRelay::start_on(stores, "").await;
    relay.at_operators(GET, "/health", "", "").await.assert_ok();
    let answer = relay.at_operators(GET, "/ready", "", "").await;
    let report = answer.json();
    assert_eq!((answer.status.as_u16(), &report["ready"]), (503, &serde_json::json!(false)));
    let conditions: Vec<_> =
        report["not_met"].as_array().unwrap().iter().map(|unmet| &unmet["condition"]).collect();
    assert_eq!(conditions, ["storage"], "{report}");
    assert!(report["not_met"][0]["problem"].as_str().unwrap().contains("takes no writes"));
    let what_to_do = report["not_met"][0]["what_to_do"].as_str().unwrap();
    assert!(what_to_do.contains("disk of the data folder"), "{what_to_do}");
}

/// Can do nothing, like a store whose disk is gone.
struct FailingStore;

fn gone<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable("the disk is gone".into()))
}

#[async_trait]
impl MailboxStore for FailingStore {
    async fn deposit(&self, _: Deposit, _: Quotas) -> Result<Deposited, StoreError> {
        gone()
    }

    async fn collect(
        &self,
        _: &ServerName,
        _: Option<EntryId>,
        _: Page,
    ) -> Result<Collected, StoreError> {
        gone()
    }

    async fn acknowledge(
        &self,
        _: &ServerName,
        _: &[Acknowledgement],
    ) -> Result<Acknowledged, StoreError> {
        gone()
    }

    async fn depth(&self, _: &ServerName) -> Result<Depth, StoreError> {
        gone()
    }

    async fn expire(&self, _: Due, _: usize) -> Result<Expired, StoreError> {
        gone()
    }

    async fn losses(&self, _: &ServerName) -> Result<Vec<Loss>, StoreError> {
        gone()
    }

    async fn standing(&self, _: &ServerName) -> Result<(Depth, Vec<Loss>), StoreError> {
        gone()
    }

    async fn forget_losses(&self, _: &ServerName, _: Timestamp) -> Result<(), StoreError> {
        gone()
    }

    async fn list(
        &self,
        _: Option<&ServerName>,
        _: usize,
    ) -> Result<Vec<MailboxSummary>, StoreError> {
        gone()
    }

    async fn health(&self) -> Result<(), StoreError> {
        gone()
    }
}
