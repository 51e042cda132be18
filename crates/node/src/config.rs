//! The node's configuration file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use restante_federation::config::{
    FederationSection, KeysSection, PeerSection, Period, TlsSection,
};
use restante_federation::{BaseUrl, ClientConfig};
use restante_federation_proto::{ServerGlob, ServerName};
use restante_operators::LogSection;
use restante_relay_api::Senders;
use restante_relay_api::limits::SENDERS_MAX;
use serde::Deserialize;

use crate::inbound::{PassedPath, default_paths};

/// The whole file. `restante config generate node` writes every key with its meaning and default.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// The homeserver's name.
    pub server_name: ServerName,
    /// The homeserver's own signing key file.
    pub signing_key: PathBuf,
    /// The homeserver's plain listener with the resources `client` and `federation`.
    pub homeserver: BaseUrl,
    /// Folder of the node's state.
    #[serde(default = "default_data")]
    pub data: PathBuf,
    /// Where the homeserver's own traffic enters.
    pub outbound: OutboundSection,
    /// Where other servers' traffic enters.
    #[serde(default)]
    pub inbound: InboundSection,
    /// Where the operator asks.
    #[serde(default)]
    pub admin: AdminSection,
    /// What is logged.
    #[serde(default)]
    pub log: LogSection,
    /// How hard to try.
    #[serde(default)]
    pub delivery: DeliverySection,
    /// How to collect.
    #[serde(default)]
    pub collect: CollectSection,
    /// Who may leave mail at our relays, and how long it is kept.
    #[serde(default)]
    pub mailbox: MailboxSection,
    /// How to hand over what was collected.
    #[serde(default)]
    pub inbox: InboxSection,
    /// What becomes of what was left with relays.
    #[serde(default)]
    pub outbox: OutboxSection,
    /// How relays are found that nobody named.
    #[serde(default)]
    pub records: RecordsSection,
    /// Relays of each server; the own server's are those that hold our mail.
    #[serde(default)]
    pub relays: BTreeMap<ServerName, Vec<PeerSection>>,
    /// How to reach other servers.
    #[serde(default)]
    pub federation: FederationSection,
    /// Whose word counts for keys.
    #[serde(default)]
    pub keys: KeysSection,
}

impl NodeConfig {
    /// How to reach other servers.
    pub fn client_config(&self) -> ClientConfig {
        let web_sites = self.records.web_sites.clone();
        ClientConfig { web_sites, ..self.federation.client_config() }
    }
}

/// `[outbound]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutboundSection {
    /// Address of the worker hook.
    #[serde(default = "default_outbound")]
    pub listen: SocketAddr,
    /// The homeserver's `worker_replication_secret`.
    pub secret: String,
}

/// `[inbound]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InboundSection {
    /// Address for other servers.
    pub listen: SocketAddr,
    /// Certificate files; without them plain HTTP, for a reverse proxy in front.
    pub tls: Option<TlsSection>,
    /// Paths that are passed on to the homeserver, each with everything below it.
    pub paths: Vec<PassedPath>,
    /// Networks of reverse proxies that are not on loopback: believed when they say for whom they call, and not counted
    /// per address.
    pub trusted_proxies: Vec<IpNet>,
    /// Connections of one IPv4 address or IPv6 /64 network at once.
    pub connections_per_address_max: NonZeroUsize,
}

/// `[admin]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminSection {
    /// Address for the operator; keep it on loopback.
    pub listen: SocketAddr,
    /// Names by which it may be called there, beside IP addresses and `localhost`.
    pub hosts: Vec<String>,
    /// Users of the homeserver whose access tokens open the admin API's relays.
    pub matrix_admins: Vec<String>,
}

/// `[delivery]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeliverySection {
    /// Consecutive failed attempts after which a destination is assumed offline. Dendrite's is 2 as well.
    pub attempts_until_offline: u32,
    /// At most one probe of a destination that is assumed offline in this time.
    pub probe_interval: Period,
    /// How long a probe may take to connect.
    pub probe_connect: Period,
    /// How long each relay may take for a deposit.
    pub relay_deadline: Period,
    /// How long the answer to a relayed `/send` is held, so that the homeserver batches what comes meanwhile.
    pub relayed_answer_hold: Period,
    /// With whose relays mail is left.
    pub prefer: Preference,
    /// The same for single destinations.
    pub prefer_for: BTreeMap<ServerName, Preference>,
}

/// With whose relays mail is left for a destination that can't be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preference {
    /// The destination's; with our own outgoing ones if none of those takes it.
    #[default]
    Recipient,
    /// Our own outgoing ones; with the destination's if none of those takes it.
    Sender,
    /// All of them at once.
    Both,
    /// The destination's alone: ours see nothing of it.
    Never,
}

/// `[collect]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CollectSection {
    /// How long a relay is asked to wait for mail.
    pub wait: Period,
    /// Every relay is asked anew after this time at the latest, whatever became of the long poll.
    pub safety_interval: Period,
    /// Whether servers that were met before are told, by one signed request each, when this node is back after it was away,
    /// so that they send at once what they kept.
    pub wake: bool,
}

/// Relays refuse less: the mail would be gone before anybody can call for it.
const TIME_TO_LIVE_MIN: Duration = Duration::from_secs(3600);

/// `[mailbox]`: what our relays are told of the mail that they take for us.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "MailboxText")]
pub struct MailboxSection {
    senders: Senders,
    time_to_live: Option<Period>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MailboxText {
    allow: Vec<ServerGlob>,
    block: Vec<ServerGlob>,
    time_to_live: Option<Period>,
}

impl Default for MailboxText {
    fn default() -> Self {
        let Senders { allow, block } = Senders::default();
        Self { allow, block, time_to_live: None }
    }
}

impl TryFrom<MailboxText> for MailboxSection {
    type Error = String;

    fn try_from(text: MailboxText) -> Result<Self, String> {
        let senders = Senders { allow: text.allow, block: text.block };
        if !senders.fit() {
            return Err(format!("allow and block may hold {SENDERS_MAX} patterns together"));
        }
        if text.time_to_live.is_some_and(|time| time.0 < TIME_TO_LIVE_MIN) {
            return Err("time_to_live is at least \"1h\": nobody calls for mail sooner".to_owned());
        }
        Ok(Self { senders, time_to_live: text.time_to_live })
    }
}

impl MailboxSection {
    /// The same, with a pattern of servers that may leave none.
    #[cfg(test)]
    pub(crate) fn blocking(mut self, pattern: &str) -> Self {
        self.senders.block.extend(pattern.parse());
        self
    }

    /// Who may leave mail.
    pub fn senders(&self) -> Senders {
        self.senders.clone()
    }

    /// How long mail is to be kept, milliseconds; as long as the relay does, without.
    pub fn time_to_live_ms(&self) -> Option<u64> {
        self.time_to_live.map(|time| u64::try_from(time.0.as_millis()).unwrap_or(u64::MAX))
    }
}

/// `[records]`: relay records, others' and the own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecordsSection {
    /// Whether others are asked for records. A record that mail brings is believed by its key, which may be asked for.
    pub look_up: bool,
    /// The file that the node writes its own record to, for a web server.
    pub well_known_file: Option<PathBuf>,
    /// Servers whose web site's URL is known here.
    pub web_sites: BTreeMap<ServerName, BaseUrl>,
}

impl Default for RecordsSection {
    fn default() -> Self {
        Self { look_up: true, well_known_file: None, web_sites: BTreeMap::new() }
    }
}

/// `[inbox]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InboxSection {
    /// How long a transaction waits for earlier events of its rooms while a relay may still have them.
    pub gap_wait: Period,
}

/// `[outbox]`: copies of what was left with relays, kept until it is known to have arrived.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutboxSection {
    /// Bytes of all copies, compressed; beyond them the oldest go.
    pub bytes_max: u64,
    /// How long a destination that answers may take to confirm, before what it has not confirmed is sent to it directly.
    pub confirm_wait: Period,
    /// A relay is asked what became of a transaction for the first time after this time, ...
    pub audit_after: Period,
    /// ... and then at most once in this time.
    pub audit_interval: Period,
}

/// A homeserver opens a handful, so that a dozen behind one address fit; and one address can't have all.
const CONNECTIONS_PER_ADDRESS_MAX: NonZeroUsize = NonZeroUsize::new(128).unwrap();

fn default_data() -> PathBuf {
    PathBuf::from("./restante-node")
}

fn default_outbound() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8470))
}

impl Default for InboundSection {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 8448));
        Self {
            listen,
            tls: None,
            paths: default_paths(),
            trusted_proxies: Vec::new(),
            connections_per_address_max: CONNECTIONS_PER_ADDRESS_MAX,
        }
    }
}

impl Default for AdminSection {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 8471));
        Self { listen, hosts: Vec::new(), matrix_admins: Vec::new() }
    }
}

impl Default for DeliverySection {
    fn default() -> Self {
        Self {
            attempts_until_offline: 2,
            probe_interval: Period::seconds(30),
            probe_connect: Period::seconds(3),
            relay_deadline: Period::seconds(10),
            relayed_answer_hold: Period::seconds(1),
            prefer: Preference::default(),
            prefer_for: BTreeMap::new(),
        }
    }
}

impl Default for InboxSection {
    fn default() -> Self {
        Self { gap_wait: Period::seconds(15 * 60) }
    }
}

impl Default for OutboxSection {
    fn default() -> Self {
        Self {
            // A month of mail of a small server, several times over: messages take half a KiB each, compressed.
            bytes_max: 1024 * 1024 * 1024,
            confirm_wait: Period::seconds(10 * 60),
            audit_after: Period::seconds(10 * 60),
            audit_interval: Period::seconds(3600),
        }
    }
}

impl Default for CollectSection {
    fn default() -> Self {
        Self { wait: Period::seconds(30), safety_interval: Period::seconds(300), wake: true }
    }
}
