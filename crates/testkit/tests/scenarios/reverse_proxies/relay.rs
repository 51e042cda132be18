//! A relay for invited servers behind a proxy, and what `restante doctor` says of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Request;
use restante_federation::{
    BaseUrl, ClientConfig, DnsConfig, Exchange as _, FederationClient, Patience, Peer, empty,
};
use restante_federation_proto::SystemClock;
use restante_testkit::{Port, Process, Program};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::front::{Front, Kind};

/// A start takes well under a second on an idle machine.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// For one small question on loopback.
const PATIENCE: Patience =
    Patience { connect: Duration::from_secs(10), answer: Duration::from_secs(30) };

/// A relay and its proxy.
pub(super) struct FrontedRelay {
    _relay: Process,
    _front: Front,
    config: PathBuf,
    folder: TempDir,
}

/// What a doctor said.
#[derive(Debug)]
pub(super) struct Report(Value);

impl FrontedRelay {
    /// Behind the proxy as contrib configures it.
    pub(super) async fn start(kind: Kind) -> Self {
        Self::start_changed(kind, &[]).await
    }

    /// Behind one that was configured otherwise.
    pub(super) async fn start_changed(kind: Kind, changes: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let (public, operators) = (Port::reserve(), Port::reserve());
        let front = Front::before(kind, &public.address(), changes).await;
        let config = json!({
            "listen": public.address(),
            "data": folder.path().join("data"),
            "serve": "invited",
            "public_url": format!("https://{}", front.port.address()),
            "operators": { "listen": operators.address() },
            "federation": { "dns": "off", "extra_ca_files": [front.authority] },
        });
        let file = folder.path().join("relay.toml");
        let text = toml::to_string(&config).expect("the test writes no nulls");
        std::fs::write(&file, text).expect("the test's folder is writable");
        let mut relay = Process::start(Program {
            name: "the relay".to_owned(),
            executable: executable(),
            arguments: vec!["relay".into(), "--config".into(), file.clone().into()],
            directory: folder.path().to_owned(),
            log: folder.path().join("relay.log"),
        });
        let is_up = async || TcpStream::connect(operators.address()).await.ok();
        relay.until_ready(READY_DEADLINE, is_up).await;
        Self { _relay: relay, _front: front, config: file, folder }
    }

    /// Has a doctor look at it from outside.
    pub(super) async fn examine(&self, options: &[&str]) -> Report {
        let mut doctor = Command::new(executable());
        doctor.args(["doctor", "relay", "--json", "--config"]).arg(&self.config).args(options);
        let output = doctor.current_dir(self.folder.path()).kill_on_drop(true).output().await;
        let output = output.expect("the doctor starts");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(report.is_object(), "the doctor wrote no JSON: {error}");
        assert_eq!(output.status.success(), report["healthy"] == true, "{report:#}");
        Report(report)
    }
}

impl Report {
    /// How the step with this name went.
    pub(super) fn verdict(&self, name: &str) -> &str {
        self.step(name)["verdict"].as_str().unwrap_or("absent")
    }

    /// What it says to do.
    pub(super) fn advice(&self, name: &str) -> &str {
        self.step(name)["what_to_do"].as_str().unwrap_or_default()
    }

    /// Whether nothing failed.
    pub(super) fn healthy(&self) -> bool {
        self.0["healthy"] == true
    }

    fn step(&self, name: &str) -> &Value {
        let mut steps = self.0["steps"].as_array().into_iter().flatten();
        steps.find(|step| step["name"] == name).unwrap_or(&Value::Null)
    }
}

/// One question to `url`, which claims to be passed on for `claimed`.
pub(super) async fn ask_claiming(url: &str, authority: &Path, claimed: &str) {
    let config = ClientConfig {
        dns: DnsConfig::Off,
        extra_ca_files: vec![authority.to_owned()],
        ..ClientConfig::default()
    };
    let client = FederationClient::new(config, std::sync::Arc::new(SystemClock));
    let client = client.expect("the authority's file is good");
    let (base, path) = url.split_at(url.find("/_matrix").expect("the path of a question"));
    let base: BaseUrl = base.parse().expect("a URL without a path");
    let peer = Peer::new("relay.example".parse().expect("a name"), Some(base));
    let request = Request::get(path).header("x-forwarded-for", claimed).body(empty());
    let answered = client.exchange(&peer, request.expect("a small request"), PATIENCE).await;
    answered.expect("the proxy answers");
}

fn executable() -> PathBuf {
    let named = std::env::var_os("RESTANTE_BIN");
    named.expect("RESTANTE_BIN is not set; run `cargo xtask test`, which builds the program").into()
}
