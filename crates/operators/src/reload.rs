//! A changed configuration is read again, applied as far as that is safe, and the rest is named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use axum::response::Response;
use http::StatusCode;
use restante_federation::{Certificate, Reloaded};
use restante_federation_proto::{ErrorCode, MatrixError};
use serde::Serialize;
use tokio::sync::Mutex;
use toml::{Table, Value};

use crate::answer::{json, shown};

/// A configuration as it stands in its file, with what goes before the file.
pub struct FreshConfig<C> {
    /// What it means.
    pub config: C,
    /// What it says: every key that is set.
    pub keys: Table,
}

/// Where a program's configuration is read again; reads files, so it is called outside of the event loop.
pub trait ConfigSource<C>: Send + Sync + 'static {
    /// The configuration now; the error says what is wrong in it, and where.
    fn read(&self) -> Result<FreshConfig<C>, String>;

    /// What was read is in force now; what of it is the process's own, such as what it logs, is for the source to take up.
    fn took_effect(&self, config: &C) {
        let _ = config;
    }
}

/// Puts in force what can be changed while a program runs.
#[async_trait]
pub trait Apply<C>: Send + Sync + 'static {
    /// All of it or nothing; the error says why nothing.
    async fn apply(&self, config: &C) -> Result<(), String>;
}

/// Takes up a changed configuration.
#[async_trait]
pub trait Reload: Send + Sync + 'static {
    /// Reads it, and applies what can be applied.
    async fn reload(&self) -> ReloadReport;
}

/// What became of a changed configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ReloadReport {
    /// Keys whose new value is in force.
    pub applied: Vec<String>,
    /// Keys whose new value a restart puts in force.
    pub needs_restart: Vec<String>,
    /// Why nothing was changed.
    pub error: Option<String>,
}

/// Compares, sorts and applies for one program.
pub struct Reloader<C> {
    source: Arc<dyn ConfigSource<C>>,
    /// Keys that `apply` puts in force; `limits` stands for all keys of that section.
    applicable: &'static [&'static str],
    apply: Box<dyn Apply<C>>,
    certificate: Option<(&'static str, Certificate)>,
    /// What is in force.
    running: Mutex<BTreeMap<String, Value>>,
}

impl<C: Send + Sync + 'static> Reloader<C> {
    /// Beginning with the configuration that the program was started with, which said `keys`.
    pub fn new(
        source: Arc<dyn ConfigSource<C>>,
        keys: &Table,
        applicable: &'static [&'static str],
        apply: impl Apply<C>,
    ) -> Self {
        let running = Mutex::new(leaves(keys));
        Self { source, applicable, apply: Box::new(apply), certificate: None, running }
    }

    /// The same, which reads the files of `certificate`, which `section` names, again, too.
    #[must_use]
    pub fn with_certificate(self, section: &'static str, certificate: Option<Certificate>) -> Self {
        Self { certificate: certificate.map(|certificate| (section, certificate)), ..self }
    }

    async fn changed(&self) -> Result<ReloadReport, String> {
        // One at a time, so that what is in force and what is reported agree.
        let mut running = self.running.lock().await;
        let source = self.source.clone();
        let read = tokio::task::spawn_blocking(move || source.read());
        let fresh = read.await.map_err(|error| format!("the file was not read: {error}"))??;
        let wanted = leaves(&fresh.keys);
        let changed = changed(&running, &wanted);
        let (applied, needs_restart): (Vec<_>, Vec<_>) =
            changed.into_iter().partition(|key| is_applicable(self.applicable, key));
        let certificate = self.renew_certificate().await?;
        if !applied.is_empty() {
            self.apply.apply(&fresh.config).await?;
            self.source.took_effect(&fresh.config);
        }
        for key in &applied {
            match wanted.get(key) {
                Some(value) => running.insert(key.clone(), value.clone()),
                None => running.remove(key),
            };
        }
        let applied = applied.into_iter().chain(certificate).collect();
        Ok(ReloadReport { applied, needs_restart, error: None })
    }

    /// The section whose files hold another certificate than before.
    async fn renew_certificate(&self) -> Result<Option<String>, String> {
        let Some((section, certificate)) = &self.certificate else { return Ok(None) };
        match certificate.reload().await {
            Ok(Reloaded::Renewed) => Ok(Some((*section).to_owned())),
            Ok(Reloaded::Unchanged) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[async_trait]
impl<C: Send + Sync + 'static> Reload for Reloader<C> {
    async fn reload(&self) -> ReloadReport {
        let report = self.changed().await;
        let report = report
            .unwrap_or_else(|error| ReloadReport { error: Some(error), ..Default::default() });
        log(&report);
        report
    }
}

fn log(report: &ReloadReport) {
    let ReloadReport { applied, needs_restart, error } = report;
    if let Some(error) = error {
        tracing::error!(error, "the configuration was not reloaded; what was in force stays");
        return;
    }
    let applied = applied.join(" ");
    tracing::info!(config.applied = applied, "configuration reloaded");
    if !needs_restart.is_empty() {
        let needs_restart = needs_restart.join(" ");
        tracing::warn!(config.needs_restart = needs_restart, "restart to put the rest in force");
    }
}

/// Every key that is no section, with its sections: `limits.body_bytes_max`.
fn leaves(table: &Table) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    collect(table, "", &mut found);
    found
}

fn collect(table: &Table, section: &str, found: &mut BTreeMap<String, Value>) {
    for (key, value) in table {
        let path = format!("{section}{key}");
        match value {
            Value::Table(inner) => collect(inner, &format!("{path}."), found),
            value => drop(found.insert(path, value.clone())),
        }
    }
}

fn changed(
    running: &BTreeMap<String, Value>,
    wanted: &BTreeMap<String, Value>,
) -> BTreeSet<String> {
    let keys = running.keys().chain(wanted.keys());
    keys.filter(|key| running.get(*key) != wanted.get(*key)).cloned().collect()
}

/// Whether `key` is one of the keys, or in one of the sections, that `applicable` lists.
fn is_applicable(applicable: &[&str], key: &str) -> bool {
    let is_within = |known: &&str| {
        key.strip_prefix(*known).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    applicable.iter().any(is_within)
}

/// Answers `POST /reload`. A broken file is the request's refusal, and has the report's members besides, for scripts.
pub fn reload_answer(report: &ReloadReport) -> Response {
    let Some(error) = &report.error else { return shown(report) };
    let text = format!("Nothing was changed: {error}");
    let refused = MatrixError::new(StatusCode::BAD_REQUEST, ErrorCode::InvalidParam, text);
    let mut body: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&refused.to_json()).unwrap_or_default();
    body.insert("applied".to_owned(), serde_json::json!([]));
    body.insert("needs_restart".to_owned(), serde_json::json!([]));
    json(StatusCode::BAD_REQUEST, serde_json::Value::Object(body).to_string())
}
