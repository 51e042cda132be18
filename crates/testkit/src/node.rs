//! A node process beside a homeserver.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::{Method, Request};
use http_body_util::Full;
use restante_federation_proto::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::clock::MovedClock;
use crate::eventually;
use crate::http_probe::{ADMIN, command, exchange};
use crate::ports::Port;
use crate::process::{Process, restante};
use crate::relay::RelayAddress;

/// A start takes well under a second on an idle machine.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// What a node is to be.
#[derive(Debug, Clone)]
pub struct NodePlan {
    /// The homeserver's name.
    pub server_name: ServerName,
    /// The homeserver's signing key file.
    pub signing_key_file: PathBuf,
    /// The homeserver's plain listener.
    pub homeserver_url: String,
    /// The folder for everything it writes; made if it is missing.
    pub directory: PathBuf,
    /// Static routes: server name to URL.
    pub routes: BTreeMap<String, String>,
    /// The relays of each server, its own included.
    pub relays: BTreeMap<String, Vec<RelayAddress>>,
    /// Notaries that vouch for keys.
    pub notaries: Vec<RelayAddress>,
    /// How long a gap in a room is waited for; the product's default without.
    pub gap_wait: Option<Duration>,
    /// How long what was left with relays is waited for in each step, if not as long as by default.
    pub outbox_wait: Option<Duration>,
    /// How it finds relays that nobody named.
    pub finding: Finding,
}

/// How nodes find relays that nobody named.
#[derive(Debug, Clone, Default)]
pub struct Finding {
    /// Whether relays on this machine may be found, as if it were the internet.
    pub on_loopback: bool,
    /// URLs of web sites by the names of their servers.
    pub web_sites: BTreeMap<String, String>,
    /// Where the node writes its own record for a web site.
    pub file: Option<PathBuf>,
}

/// The three listeners of a node, fixed before it starts because its neighbors' configurations name them.
#[derive(Debug)]
pub(crate) struct NodeDoors {
    pub(crate) outbound: Port,
    pub(crate) inbound: Port,
    pub(crate) admin: Port,
    /// The secret that the homeserver shows at the outbound door.
    pub(crate) secret: String,
}

impl NodeDoors {
    pub(crate) fn reserve() -> Self {
        let secret = format!("{:032x}", rand::random::<u128>());
        let (outbound, inbound, admin) = (Port::reserve(), Port::reserve(), Port::reserve());
        Self { outbound, inbound, admin, secret }
    }
}

/// A node.
#[derive(Debug)]
pub struct NodeProcess {
    process: Process,
    doors: NodeDoors,
    data: PathBuf,
    clock: Option<MovedClock>,
}

impl NodeProcess {
    /// Configures a node and starts it; returns when it answers.
    pub(crate) async fn start(plan: NodePlan, doors: NodeDoors) -> Self {
        std::fs::create_dir_all(&plan.directory).expect("the test's folder is writable");
        let data = plan.directory.join("data");
        let config = configuration(&plan, &doors, &data);
        let name = format!("{}'s node", plan.server_name);
        let process = Process::start(restante(&name, &plan.directory, "node", &config));
        let mut node = Self { process, doors, data, clock: None };
        node.until_ready().await;
        node
    }

    /// Starts it again with the data it has.
    pub async fn start_again(&mut self) {
        self.process.start_again();
        self.until_ready().await;
    }

    async fn until_ready(&mut self) {
        let doors = [self.doors.outbound.address(), self.doors.inbound.address()];
        let (status, data) =
            (format!("{}{ADMIN}/status", self.doors.admin.url()), self.data.clone());
        let look = async || {
            for door in &doors {
                TcpStream::connect(door).await.ok()?;
            }
            ask(Method::GET, &status, &data).await
        };
        self.process.until_ready(READY_DEADLINE, look).await;
    }

    /// Shuts it down in order.
    pub async fn stop(&mut self) {
        self.process.terminate().await;
    }

    /// Sets the wall clock ahead that it sees from its next start on.
    pub(crate) fn set_clock_ahead(&mut self, ahead: Duration) {
        let clock = MovedClock::ahead(ahead, &self.data);
        self.process.set_environment(clock.environment());
        self.clock = Some(clock);
    }

    /// Lets time pass at once for the running node, on the clocks by which it waits as well.
    ///
    /// # Panics
    ///
    /// When its site's clock was not set before it started.
    pub fn let_time_pass(&mut self, time: Duration) {
        self.clock.as_mut().expect("the site's clock was set before").pass(time);
    }

    /// Kills it as a power cut would.
    pub async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// Whether it was started and not stopped since.
    pub fn is_started(&self) -> bool {
        self.process.is_started()
    }

    /// Removes what the stopped node remembers of other servers' keys.
    ///
    /// # Panics
    ///
    /// When it runs.
    pub fn forget_keys(&self) {
        self.remove_database("keys.sqlite");
    }

    /// Removes the stopped node's state: mail on its way, numbers, what it has seen.
    ///
    /// # Panics
    ///
    /// When it runs.
    pub fn lose_state(&self) {
        self.remove_database("node.sqlite");
    }

    /// A copy of the stopped node's state.
    ///
    /// # Panics
    ///
    /// When it runs.
    pub fn back_up_state(&self) -> Vec<u8> {
        assert!(!self.process.is_started(), "stop the node before its state is copied");
        std::fs::read(self.data.join("node.sqlite")).expect("a node that ran has a database")
    }

    /// Puts a copy in the place of the stopped node's state.
    ///
    /// # Panics
    ///
    /// When it runs.
    pub fn restore_state(&self, copy: &[u8]) {
        self.lose_state();
        std::fs::write(self.data.join("node.sqlite"), copy).expect("the folder is writable");
    }

    fn remove_database(&self, name: &str) {
        assert!(!self.process.is_started(), "stop the node before its databases are removed");
        for suffix in ["", "-wal", "-shm"] {
            match std::fs::remove_file(self.data.join(format!("{name}{suffix}"))) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    panic!("cannot remove {name}{suffix}: {error}")
                }
                _ => {}
            }
        }
    }

    /// What `GET /status` says.
    pub async fn status(&self) -> Value {
        self.admin(Method::GET, "/status").await
    }

    /// What it knows of the relays of `server`.
    pub async fn relays_of(&self, server: &str) -> Vec<Value> {
        let relays = self.admin(Method::GET, &format!("/relays?server={server}")).await;
        relays.as_array().cloned().expect("the node lists relays")
    }

    /// Asks the admin API as an app that holds this access token of the homeserver's.
    pub async fn ask_with_token(&self, method: Method, path: &str, token: &str) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{ADMIN}{path}", self.doors.admin.url()))
            .header("authorization", format!("Bearer {token}"))
            .body(Full::default())
            .expect("the harness builds whole URLs");
        let (status, body) = exchange(request).await.expect("a node that runs answers");
        (status.as_u16(), serde_json::from_slice(&body).unwrap_or_default())
    }

    /// What it left with relays, as `GET /outbox` shows it.
    pub async fn outbox(&self) -> Value {
        self.admin(Method::GET, "/outbox").await
    }

    /// What is parked, as `GET /parked` lists it.
    pub async fn parked(&self) -> Vec<Value> {
        let parked = self.admin(Method::GET, "/parked").await;
        parked.as_array().cloned().expect("the node lists what is parked")
    }

    /// Tries everything again that is parked.
    pub async fn retry_parked(&self) {
        self.admin(Method::POST, "/parked/retry").await;
    }

    /// Has it join a relay; else what it says.
    pub async fn join(&self, line: &str) -> Result<Value, String> {
        self.command("/relays/join", &json!({ "line": line })).await
    }

    /// Has it leave a relay, with `drop` or `keep` for the mail there; else what it says.
    pub async fn leave(&self, relay: &ServerName, mail: &str) -> Result<Value, String> {
        self.command(&format!("/relays/{relay}/leave"), &json!({ "mail": mail })).await
    }

    async fn command(&self, path: &str, body: &Value) -> Result<Value, String> {
        let url = format!("{}{ADMIN}{path}", self.doors.admin.url());
        let (status, answer) = command(Method::POST, &url, &self.data, body).await;
        if status.is_success() {
            return Ok(answer);
        }
        Err(answer["error"].as_str().unwrap_or_default().to_owned())
    }

    async fn admin(&self, method: Method, path: &str) -> Value {
        let (url, data) = (format!("{}{ADMIN}{path}", self.doors.admin.url()), &self.data);
        eventually(&format!("the node answers {path}"), READY_DEADLINE, async || {
            ask(method.clone(), &url, data).await
        })
        .await
    }

    /// Waits until the status is as `look` wants it, and returns what it found.
    pub async fn wait_for_status<T>(
        &self,
        what: &str,
        deadline: Duration,
        look: impl Fn(&Value) -> Option<T>,
    ) -> T {
        eventually(what, deadline, async || look(&self.status().await)).await
    }

    /// Waits until it has collected from `count` relays: these know its server's keys from then on.
    pub(crate) async fn wait_until_collected(&self, count: usize) {
        let what = format!("{count} relays have let the node collect");
        self.wait_for_status(&what, READY_DEADLINE, |status| {
            let relays = status["relays"].as_array()?.iter();
            (relays.filter(|relay| !relay["last_collect_at"].is_null()).count() == count)
                .then_some(())
        })
        .await;
    }

    /// The most memory that it has held at once since its start, MiB, where the system tells.
    pub fn peak_memory_mib(&self) -> Option<u64> {
        self.process.peak_memory_mib()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

async fn ask(method: Method, url: &str, data: &std::path::Path) -> Option<Value> {
    let token = std::fs::read_to_string(data.join("admin-token")).ok()?;
    let request = Request::builder()
        .method(method)
        .uri(url)
        .header("authorization", format!("Bearer {}", token.trim()))
        .body(Full::default())
        .expect("the harness builds whole URLs");
    let (_, body) = exchange(request).await.filter(|(status, _)| status.is_success())?;
    serde_json::from_slice(&body).ok()
}

fn configuration(plan: &NodePlan, doors: &NodeDoors, data: &std::path::Path) -> Value {
    let relays: BTreeMap<_, Vec<_>> = plan
        .relays
        .iter()
        .map(|(served, relays)| (served, relays.iter().map(RelayAddress::to_config).collect()))
        .collect();
    let notaries: Vec<_> = plan.notaries.iter().map(RelayAddress::to_config).collect();
    let mut config = json!({
        "server_name": plan.server_name,
        "signing_key": plan.signing_key_file,
        "homeserver": plan.homeserver_url,
        "data": data,
        "outbound": { "listen": doors.outbound.address(), "secret": doors.secret },
        "inbound": { "listen": doors.inbound.address() },
        "admin": { "listen": doors.admin.address() },
        "relays": relays,
        "federation": { "routes": plan.routes, "dns": "off" },
        "keys": { "notaries": notaries },
    });
    let Finding { on_loopback, web_sites, file } = &plan.finding;
    if *on_loopback {
        config["federation"]["allow_networks"] = json!(["127.0.0.0/8"]);
    }
    config["records"] = json!({ "web_sites": web_sites });
    if let Some(file) = file {
        config["records"]["well_known_file"] = json!(file);
    }
    if let Some(wait) = plan.outbox_wait {
        let wait = format!("{}s", wait.as_secs());
        config["outbox"] =
            json!({ "confirm_wait": wait, "audit_after": wait, "audit_interval": wait });
    }
    if let Some(gap_wait) = plan.gap_wait {
        config["inbox"] = json!({ "gap_wait": format!("{}s", gap_wait.as_secs()) });
    }
    config
}
