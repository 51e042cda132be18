//! A test's corner of the machine: its folder, the doors of its sites, and who holds whose mail.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use restante_federation_proto::ServerName;
use tempfile::TempDir;

use crate::forwarder::Forwarder;
use crate::homeserver::{Homeserver, HomeserverPlan, OutboundHook};
use crate::link::Link;
use crate::node::{Finding, NodeDoors, NodePlan, NodeProcess};
use crate::relay::{Onward, RelayAddress, RelayPlan, RelayProcess, Serves};
use crate::site::Site;
use crate::stock_site::StockSite;
use crate::web_site::WebSite;

/// What the parts of a test know of each other.
#[derive(Debug)]
pub struct World {
    directory: TempDir,
    doors: BTreeMap<String, (NodeDoors, Link)>,
    routes: BTreeMap<String, String>,
    relays: BTreeMap<String, Vec<RelayAddress>>,
    notaries: Vec<RelayAddress>,
    gap_wait: Option<Duration>,
    outbox_wait: Option<Duration>,
    finding: Finding,
    files: BTreeMap<String, PathBuf>,
}

impl World {
    /// A world with sites of these names, none of which is started. Each gets a static route to its door.
    pub fn with_sites(names: &[&str]) -> Self {
        let (mut doors, mut routes) = (BTreeMap::new(), BTreeMap::new());
        for &name in names {
            let node = NodeDoors::reserve();
            let link = Link::to(node.inbound.address());
            routes.insert(name.to_owned(), link.url());
            doors.insert(name.to_owned(), (node, link));
        }
        let directory =
            TempDir::with_prefix("restante-").expect("the temporary folder is writable");
        Self {
            directory,
            doors,
            routes,
            relays: BTreeMap::new(),
            notaries: Vec::new(),
            gap_wait: None,
            outbox_wait: None,
            finding: Finding::default(),
            files: BTreeMap::new(),
        }
    }

    /// Starts a relay.
    pub async fn start_relay(&self, name: &str) -> RelayProcess {
        self.start_relay_with_routes(name, BTreeMap::new()).await
    }

    /// Starts a relay for which `misled` replaces some of the world's routes.
    pub async fn start_relay_with_routes(
        &self,
        name: &str,
        misled: BTreeMap<String, String>,
    ) -> RelayProcess {
        let mut routes = self.routes.clone();
        routes.extend(misled);
        let directory = self.folder(name);
        let (name, serves, onward) = (name.to_owned(), Serves::Everybody, Onward::Patiently);
        RelayProcess::start(RelayPlan { name, directory, routes, serves, onward }).await
    }

    /// Starts a relay that serves whom its operator invited.
    pub async fn start_invited_relay(&self, name: &str) -> RelayProcess {
        let (directory, routes) = (self.folder(name), self.routes.clone());
        let (name, serves, onward) = (name.to_owned(), Serves::Invited, Onward::Patiently);
        RelayProcess::start(RelayPlan { name, directory, routes, serves, onward }).await
    }

    /// Starts a relay that calls those for whom it has mail again and again.
    pub async fn start_impatient_relay(&self, name: &str) -> RelayProcess {
        let (directory, routes) = (self.folder(name), self.routes.clone());
        let (name, serves, onward) = (name.to_owned(), Serves::Everybody, Onward::Impatiently);
        RelayProcess::start(RelayPlan { name, directory, routes, serves, onward }).await
    }

    /// Lets every site that starts from here on know that `relay` holds `server`'s mail.
    pub fn hold_mail_of(&mut self, server: &str, relay: &RelayProcess) {
        self.hold_mail_of_at(server, relay.address());
    }

    /// Lets every site that starts from here on know that the relay at `address` holds `server`'s mail.
    pub fn hold_mail_of_at(&mut self, server: &str, address: RelayAddress) {
        self.relays.entry(server.to_owned()).or_default().push(address);
    }

    /// Lets every site that starts from here on wait for less long than by default for relays that may close a gap.
    pub fn wait_for_gaps(&mut self, gap_wait: Duration) {
        self.gap_wait = Some(gap_wait);
    }

    /// Lets every site that starts from here on wait no longer than this for each step of what was left with relays.
    pub fn wait_for_confirmations(&mut self, wait: Duration) {
        self.outbox_wait = Some(wait);
    }

    /// Lets every site that starts from here on find relays on this machine that nobody named.
    pub fn find_relays(&mut self) {
        self.finding.on_loopback = true;
    }

    /// Starts the web site that `server`'s name is; its node writes the relay record there. To be called before the site
    /// starts.
    pub async fn start_web_site(&mut self, server: &str) -> WebSite {
        let site = WebSite::start(self.folder(&format!("{server}/www"))).await;
        self.finding.web_sites.insert(server.to_owned(), site.url());
        self.files.insert(server.to_owned(), site.record_file());
        site
    }

    /// Lets whatever starts from here on go another way to `server`: over `url`.
    pub fn lead_to(&mut self, server: &str, url: String) {
        self.routes.insert(server.to_owned(), url);
    }

    /// The way to `server`.
    ///
    /// # Panics
    ///
    /// When the world has no such site.
    pub fn route_to(&self, server: &str) -> String {
        self.routes[server].clone()
    }

    /// Starts a homeserver without a node, with a user. Whatever starts from here on knows the way to it.
    pub async fn start_stock_site(&mut self, name: &str, user: &str) -> StockSite {
        let forwarder = Forwarder::start(self.routes.clone()).await;
        let homeserver = Homeserver::start(HomeserverPlan {
            server_name: name.parse().expect("tests use valid server names"),
            directory: self.folder(&format!("{name}/homeserver")),
            outbound: Some(forwarder.hook()),
        })
        .await;
        let mut link = Link::to(homeserver.address());
        link.restore().await;
        self.lead_to(name, link.url());
        let client = homeserver.client(user).await;
        StockSite { client, homeserver, link, _forwarder: forwarder }
    }

    /// Lets every site that starts from here on believe `relay`'s word about keys.
    pub fn trust_as_notary(&mut self, relay: &RelayProcess) {
        self.notaries.push(relay.address());
    }

    /// Starts a site with a user.
    ///
    /// # Panics
    ///
    /// When the world has no such site, or it was started before.
    pub async fn start_site(&mut self, name: &str, user: &str) -> Site {
        let (doors, mut link) =
            self.doors.remove(name).expect("each site of the world starts once");
        let server_name: ServerName = name.parse().expect("tests use valid server names");
        let homeserver = Homeserver::start(HomeserverPlan {
            server_name: server_name.clone(),
            directory: self.folder(&format!("{name}/homeserver")),
            outbound: Some(OutboundHook {
                port: doors.outbound.number(),
                secret: doors.secret.clone(),
            }),
        })
        .await;
        let plan = NodePlan {
            server_name,
            signing_key_file: homeserver.signing_key_file(),
            homeserver_url: homeserver.url(),
            directory: self.folder(&format!("{name}/node")),
            routes: self.routes.clone(),
            relays: self.relays.clone(),
            notaries: self.notaries.clone(),
            gap_wait: self.gap_wait,
            outbox_wait: self.outbox_wait,
            finding: Finding { file: self.files.get(name).cloned(), ..self.finding.clone() },
        };
        link.restore().await;
        let node = NodeProcess::start(plan, doors).await;
        if let Some(relays) = self.relays.get(name) {
            node.wait_until_collected(relays.len()).await;
        }
        let client = homeserver.client(user).await;
        Site { client, node, homeserver, link }
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.directory.disable_cleanup(true);
            eprintln!("---- kept for a closer look: {}", self.directory.path().display());
        }
    }
}
