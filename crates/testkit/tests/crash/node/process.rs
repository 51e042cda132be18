//! A node process beside a scripted homeserver, in a hurry: waits that are seconds and minutes for real are shorter here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, header};
use restante_federation::{
    ClientConfig, Exchange as _, FederationClient, Identity, Patience, Peer, collect_limited, empty,
};
use restante_federation_proto::SystemClock;
use restante_testkit::{Port, Process, Program, RelayAddress};
use serde_json::{Value, json};

use crate::dice::pass;
use crate::victim::restante;

/// A start takes well under a second on an idle machine.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// For a question to the operator's door.
const PATIENCE: Patience =
    Patience { connect: Duration::from_secs(2), answer: Duration::from_secs(10) };

/// Bytes of its answers.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Where a node listens, in each of its lives.
pub(crate) struct Doors {
    pub(crate) outbound: Port,
    pub(crate) inbound: Port,
    admin: Port,
}

impl Doors {
    pub(crate) fn reserve() -> Self {
        Self { outbound: Port::reserve(), inbound: Port::reserve(), admin: Port::reserve() }
    }
}

/// What a node is told.
pub(crate) struct NodePlan<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) homeserver: String,
    pub(crate) directory: PathBuf,
    pub(crate) routes: &'a BTreeMap<String, String>,
    pub(crate) relays: &'a BTreeMap<String, Vec<RelayAddress>>,
    pub(crate) secret: &'a str,
}

/// A node.
pub(crate) struct Node {
    process: Process,
    peer: Peer,
    token: PathBuf,
    client: FederationClient,
}

impl Node {
    pub(crate) async fn start(plan: NodePlan<'_>, doors: &Doors) -> Self {
        std::fs::create_dir_all(&plan.directory).unwrap();
        let config = plan.directory.join("node.toml");
        std::fs::write(&config, toml::to_string(&configuration(&plan, doors)).unwrap()).unwrap();
        let program = Program {
            name: format!("{}'s node", plan.identity.server_name),
            executable: restante(),
            arguments: vec![
                "node".into(),
                "--config".into(),
                config.into(),
                "--log".into(),
                "info,restante_node=debug".into(),
            ],
            directory: plan.directory.clone(),
            log: plan.directory.join("node.log"),
        };
        let url = doors.admin.url().parse().unwrap();
        let peer = Peer::new(plan.identity.server_name.clone(), Some(url));
        let client = FederationClient::new(ClientConfig::default(), Arc::new(SystemClock)).unwrap();
        let token = data(&plan.directory).join("admin-token");
        let mut node = Self { process: Process::start(program), peer, token, client };
        node.until_ready().await;
        node
    }

    pub(crate) async fn start_again(&mut self) {
        self.process.start_again();
        self.until_ready().await;
    }

    /// Starts it and kills it `age` later.
    pub(crate) async fn die_young(&mut self, age: Duration) {
        self.process.start_again();
        pass(age).await;
        self.process.kill().await;
    }

    pub(crate) async fn stop(&mut self) {
        self.process.terminate().await;
    }

    async fn until_ready(&mut self) {
        let Self { process, peer, token, client } = self;
        process
            .until_ready(READY_DEADLINE, async || ask(client, peer, token, "/status").await)
            .await;
    }

    pub(crate) async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// What an operator sees; `None` while it does not answer.
    pub(crate) async fn ask(&self, path: &str) -> Option<Value> {
        ask(&self.client, &self.peer, &self.token, path).await
    }
}

async fn ask(client: &FederationClient, peer: &Peer, token: &Path, path: &str) -> Option<Value> {
    let token = std::fs::read_to_string(token).ok()?;
    let request = Request::get(format!("/_restante/admin/v1{path}"))
        .header(header::AUTHORIZATION, format!("Bearer {}", token.trim()));
    let answer = client.exchange(peer, request.body(empty()).ok()?, PATIENCE).await.ok()?;
    let is_good = answer.status().is_success();
    let body = collect_limited(answer.into_body(), ANSWER_BYTES_MAX).await.ok()?;
    is_good.then(|| serde_json::from_slice(&body).ok())?
}

fn data(directory: &Path) -> PathBuf {
    directory.join("data")
}

fn configuration(plan: &NodePlan<'_>, doors: &Doors) -> Value {
    let key_file = plan.directory.join("signing.key");
    std::fs::write(&key_file, plan.identity.key.to_file_text()).unwrap();
    let address =
        |relay: &RelayAddress| json!({ "server_name": relay.server_name, "url": relay.url });
    let relays: BTreeMap<_, Vec<_>> = plan
        .relays
        .iter()
        .map(|(server, relays)| (server, relays.iter().map(address).collect()))
        .collect();
    json!({
        "server_name": plan.identity.server_name,
        "signing_key": key_file,
        "homeserver": plan.homeserver,
        "data": data(&plan.directory),
        "outbound": { "listen": doors.outbound.address(), "secret": plan.secret },
        "inbound": { "listen": doors.inbound.address() },
        "admin": { "listen": doors.admin.address() },
        "delivery": { "probe_interval": "2s", "relay_deadline": "3s", "relayed_answer_hold": "100ms" },
        "collect": { "wait": "5s", "safety_interval": "10s" },
        "inbox": { "gap_wait": "3s" },
        "relays": relays,
        "federation": { "routes": plan.routes, "dns": "off" },
    })
}
