//! A real Synapse: configured, started, stopped, killed.

mod config;
mod database;
mod keys;

use std::path::PathBuf;
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::Full;
use restante_federation_proto::{ServerName, SigningKey};
use restante_relay_api::{Extras, WireEnvelope};

use crate::client::{Client, Encryption, Rank};
use crate::clock::MovedClock;
use crate::http_probe::{exchange, get};
use crate::ports::Port;
use crate::process::{Process, Program};
use crate::signing::random_key;
pub use keys::OldKey;

/// A start takes 1–6 s on an idle machine; several start at once on a loaded one.
const READY_DEADLINE: Duration = Duration::from_secs(90);

/// What a homeserver is to be.
#[derive(Debug, Clone)]
pub struct HomeserverPlan {
    /// Its name.
    pub server_name: ServerName,
    /// The folder for everything it writes; made if it is missing.
    pub directory: PathBuf,
    /// Its way out; without one it federates with nobody.
    pub outbound: Option<OutboundHook>,
}

/// Synapse's federation-worker hook: all federation leaves through a node.
#[derive(Debug, Clone)]
pub struct OutboundHook {
    /// Port of the node's outbound listener on loopback.
    pub port: u16,
    /// The secret that both share (`worker_replication_secret`).
    pub secret: String,
}

/// A Synapse with an SQLite database.
#[derive(Debug)]
pub struct Homeserver {
    server_name: ServerName,
    directory: PathBuf,
    key: SigningKey,
    port: Port,
    process: Process,
    registration_secret: String,
}

impl Homeserver {
    /// Configures a homeserver and starts it; returns when it answers.
    pub async fn start(plan: HomeserverPlan) -> Self {
        let (port, key) = (Port::reserve(), random_key("a_1"));
        let registration_secret = "registration".to_owned();
        std::fs::create_dir_all(&plan.directory).expect("the test's folder is writable");
        config::write(&plan, &key, &port, &registration_secret);
        let process = Process::start(Program {
            name: format!("{}'s homeserver", plan.server_name),
            executable: python(),
            arguments: ["-m", "synapse.app.homeserver", "-c", config::FILE].map(Into::into).into(),
            directory: plan.directory.clone(),
            log: plan.directory.join("homeserver.log"),
        });
        let HomeserverPlan { server_name, directory, .. } = plan;
        let mut homeserver =
            Self { server_name, directory, key, port, process, registration_secret };
        homeserver.until_ready().await;
        homeserver
    }

    /// Starts it again with the data it has.
    pub async fn start_again(&mut self) {
        self.process.start_again();
        self.until_ready().await;
    }

    async fn until_ready(&mut self) {
        let health = format!("{}/health", self.port.url());
        let look = async || get(&health).await.filter(|(status, _)| status.is_success());
        self.process.until_ready(READY_DEADLINE, look).await;
    }

    /// Shuts it down in order.
    pub async fn stop(&mut self) {
        self.process.terminate().await;
    }

    /// Sets the wall clock ahead that it sees from its next start on.
    pub(crate) fn set_clock_ahead(&mut self, ahead: Duration) {
        self.process.set_environment(MovedClock::ahead(ahead, &self.directory).environment());
    }

    /// Kills it as a power cut would.
    pub async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// Registers a user and logs a client in as it.
    pub async fn client(&self, user: &str) -> Client {
        let client =
            Client::start(&format!("{user}'s client at {}", self.server_name), &self.directory);
        client.register(&self.url(), &self.registration_secret, user, Rank::User).await;
        client.log_in(&self.url(), user, Encryption::Off).await;
        client
    }

    /// As [`Homeserver::client`], for a client that encrypts in encrypted rooms.
    pub async fn encrypting_client(&self, user: &str) -> Client {
        let name = format!("{user}'s encrypting client at {}", self.server_name);
        let client = Client::start(&name, &self.directory);
        client.register(&self.url(), &self.registration_secret, user, Rank::User).await;
        client.log_in(&self.url(), user, Encryption::On).await;
        client
    }

    /// As [`Homeserver::client`], for a user who administers the homeserver.
    pub async fn administrator(&self, user: &str) -> Client {
        let name = format!("{user}'s client at {}", self.server_name);
        let client = Client::start(&name, &self.directory);
        let rank = Rank::Administrator;
        client.register(&self.url(), &self.registration_secret, user, rank).await;
        client.log_in(&self.url(), user, Encryption::Off).await;
        client
    }

    /// Its name.
    pub fn server_name(&self) -> &ServerName {
        &self.server_name
    }

    /// The URL of its plain listener with client and federation.
    pub fn url(&self) -> String {
        self.port.url()
    }

    /// `host:port` of the same.
    pub(crate) fn address(&self) -> String {
        self.port.address()
    }

    /// Its signing key.
    pub fn signing_key(&self) -> &SigningKey {
        &self.key
    }

    /// Gives it a transaction that was left for it, as the origin itself would have: under the origin's own signature.
    ///
    /// # Panics
    ///
    /// When the envelope has no proof, or nobody answers.
    pub async fn take_directly(&self, envelope: &WireEnvelope) -> StatusCode {
        let extras = Extras::parse(envelope.extras.clone()).expect("a relay gives whole members");
        let proof = extras.proof.expect("a node leaves the proof along");
        let request = Request::put(format!("{}{}", self.url(), proof.uri))
            .header("authorization", proof.authorization)
            .header("content-type", "application/json")
            .body(Full::new(envelope.content.clone()))
            .expect("a proof fits into a request");
        let (status, _) = exchange(request).await.expect("a homeserver that runs answers");
        status
    }

    /// The file with its signing key.
    pub fn signing_key_file(&self) -> PathBuf {
        self.directory.join(config::SIGNING_KEY_FILE)
    }

    /// Its SQLite database.
    pub fn database_file(&self) -> PathBuf {
        self.directory.join(config::DATABASE_FILE)
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

/// The Python with Synapse and matrix-nio.
///
/// # Panics
///
/// When the environment does not name it.
pub(crate) fn python() -> PathBuf {
    let named = std::env::var_os("RESTANTE_PYTHON");
    named.expect("RESTANTE_PYTHON is not set; run `cargo xtask test`, which makes the Python environment").into()
}
