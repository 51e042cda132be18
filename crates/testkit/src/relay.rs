//! A relay process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use restante_federation_proto::{ServerName, SigningKey};
use serde_json::{Value, json};

use crate::http_probe::{ADMIN, command, get};
use crate::link::Link;
use crate::mailbox::MailboxView;
use crate::ports::Port;
use crate::process::Process;
use crate::process::restante;

/// A start takes well under a second on an idle machine.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// What a relay is to be.
#[derive(Debug, Clone)]
pub struct RelayPlan {
    /// What messages call it.
    pub name: String,
    /// The folder for everything it writes; made if it is missing.
    pub directory: PathBuf,
    /// Static routes: server name to URL.
    pub routes: BTreeMap<String, String>,
    /// Who is served.
    pub serves: Serves,
    /// How it delivers mail onward.
    pub onward: Onward,
}

/// How a relay calls others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Onward {
    /// As a relay does unless it is told otherwise: a server that is away is called after half a minute, and then less and less often.
    #[default]
    Patiently,
    /// Every two seconds, and also when the sender has just come.
    Impatiently,
}

/// Whom a relay serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Serves {
    /// Everybody.
    #[default]
    Everybody,
    /// Whom its operator invited.
    Invited,
}

/// Where a relay is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayAddress {
    /// Its name.
    pub server_name: ServerName,
    /// Its URL.
    pub url: String,
}

impl RelayAddress {
    /// As an entry of a node's configuration.
    pub(crate) fn to_config(&self) -> Value {
        json!({ "server_name": self.server_name, "url": self.url })
    }
}

/// A relay named by its key, reached over a link that its process and the test can cut.
#[derive(Debug)]
pub struct RelayProcess {
    process: Process,
    port: Port,
    operators: Port,
    data: PathBuf,
    /// The way that nodes take to it; what the test itself asks goes around it.
    pub link: Link,
    server_name: ServerName,
}

impl RelayProcess {
    /// Configures a relay and starts it; returns when it answers.
    pub async fn start(plan: RelayPlan) -> Self {
        let (port, operators) = (Port::reserve(), Port::reserve());
        let mut link = Link::to(port.address());
        let data = plan.directory.join("data");
        let serve = match plan.serves {
            Serves::Everybody => "open",
            Serves::Invited => "invited",
        };
        std::fs::create_dir_all(&plan.directory).expect("the test's folder is writable");
        let onward = match plan.onward {
            Onward::Patiently => json!({}),
            Onward::Impatiently => json!({
                "origins": ["*"], "retry_after_first": "2s", "retry_after_max": "2s", "pause_after_return": "0s",
            }),
        };
        let config = json!({
            "listen": port.address(),
            "data": data,
            "serve": serve,
            "public_url": link.url(),
            "operators": { "listen": operators.address() },
            "onward": onward,
            "federation": { "routes": plan.routes, "dns": "off" },
        });
        let mut process = Process::start(restante(&plan.name, &plan.directory, "relay", &config));
        let server_name = until_ready(&mut process, &port).await;
        link.restore().await;
        Self { process, port, operators, data, link, server_name }
    }

    /// Starts it again with the data it has.
    pub async fn start_again(&mut self) {
        self.process.start_again();
        let server_name = until_ready(&mut self.process, &self.port).await;
        assert_eq!(server_name, self.server_name, "a relay keeps its name over a restart");
        self.link.restore().await;
    }

    /// Shuts it down in order.
    pub async fn stop(&mut self) {
        self.link.cut().await;
        self.process.terminate().await;
    }

    /// Removes all mail and registrations of the stopped relay, as a lost disk would; its own key is put back, and it knows the keys of others.
    ///
    /// # Panics
    ///
    /// When it runs.
    pub fn lose_mail(&self) {
        assert!(!self.process.is_started(), "stop the relay before its mail is removed");
        for entry in std::fs::read_dir(&self.data).expect("a relay that ran has a folder") {
            let path = entry.expect("the folder can be read").path();
            let is_mail = path.to_string_lossy().contains("relay.sqlite");
            if is_mail {
                std::fs::remove_file(path).expect("the folder is writable");
            }
        }
    }

    /// Kills it as a power cut would.
    pub async fn kill(&mut self) {
        self.link.cut().await;
        self.process.kill().await;
    }

    /// An invitation for `server`, as its operator gives it.
    pub async fn invite(&self, server: &ServerName) -> String {
        let body = json!({ "server": server, "expires_in_ms": 3_600_000, "note": "" });
        let url = format!("{}{ADMIN}/invites", self.operators.url());
        let (status, answer) = command(Method::POST, &url, &self.data, &body).await;
        assert!(status.is_success(), "the relay gives no invitation: {answer}");
        answer["line"].as_str().expect("an invitation is a line").to_owned()
    }

    /// What its operator is shown of `server`'s mailbox; `null` when there is none.
    pub async fn shown_mailbox(&self, server: &ServerName) -> Value {
        let url = format!("{}{ADMIN}/mailboxes/{server}", self.operators.url());
        let (status, shown) = command(Method::GET, &url, &self.data, &json!({})).await;
        if status.is_success() { shown } else { Value::Null }
    }

    /// Where nodes find it.
    pub fn address(&self) -> RelayAddress {
        RelayAddress { server_name: self.server_name.clone(), url: self.link.url() }
    }

    /// Its name.
    pub fn server_name(&self) -> &ServerName {
        &self.server_name
    }

    /// Its own URL, around the link.
    pub(crate) fn direct_url(&self) -> String {
        self.port.url()
    }

    /// The mailbox of `owner`, seen with its key.
    pub fn mailbox<'a>(&'a self, owner: &'a ServerName, key: &'a SigningKey) -> MailboxView<'a> {
        MailboxView::new(self, owner, key)
    }

    /// How many deposits nodes have asked it to hold, taken or not.
    pub fn deposits_asked(&self) -> usize {
        self.link.requests("PUT", restante_relay_api::endpoints::SEND_RELAY)
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

/// Waits for the relay's own key document, and returns the name in it.
async fn until_ready(process: &mut Process, port: &Port) -> ServerName {
    let url = format!("{}{}", port.url(), restante_relay_api::endpoints::KEY_SERVER);
    let look = async || {
        let (_, body) = get(&url).await.filter(|(status, _)| status.is_success())?;
        let document: Value = serde_json::from_slice(&body).ok()?;
        document["server_name"].as_str()?.parse().ok()
    };
    process.until_ready(READY_DEADLINE, look).await
}
