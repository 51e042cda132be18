//! The relay's configuration file; every key has a default, so that no file is needed.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use restante_federation::BaseUrl;
use restante_federation::config::{FederationSection, KeysSection, Period, TlsSection};
use restante_federation_proto::{ServerGlob, ServerName};
use restante_operators::LogSection;
use restante_relay_api::limits;
use serde::Deserialize;

/// The whole file. `restante config generate relay` writes every key with its meaning and default.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RelayConfig {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Folder of the relay's state.
    pub data: PathBuf,
    /// The relay's name; absent: the lower-case hex of its key.
    pub server_name: Option<ServerName>,
    /// The signing key file; absent: `signing.key` in the data folder, made when missing.
    pub signing_key: Option<PathBuf>,
    /// Who gets a mailbox.
    pub serve: Serve,
    /// Servers that get a mailbox when `serve` is `"listed"`.
    pub listed: Vec<ServerGlob>,
    /// Where others reach this relay; stands in invites.
    pub public_url: Option<BaseUrl>,
    /// Certificate files; absent: plain HTTP.
    pub tls: Option<TlsSection>,
    /// Networks of reverse proxies that are not on loopback; their connections are not counted per address.
    pub trusted_proxies: Vec<IpNet>,
    /// Bounds of requests.
    pub limits: LimitsSection,
    /// Bounds of mailboxes.
    pub mailbox: MailboxSection,
    /// Bounds of the relay as a whole.
    pub storage: StorageSection,
    /// Delivering mail onward.
    pub onward: OnwardSection,
    /// Sealing of mail on the disk.
    pub at_rest: AtRestSection,
    /// The operators' door.
    pub operators: OperatorsSection,
    /// What is logged.
    pub log: LogSection,
    /// How to reach other servers.
    pub federation: FederationSection,
    /// Whose word counts for keys.
    pub keys: KeysSection,
}

/// Who gets a mailbox here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Serve {
    /// Everybody, registered or not.
    Open,
    /// Who has registered with an invite.
    Invited,
    /// Who is listed, and who has registered with an invite.
    Listed,
}

/// `[limits]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    /// Bytes of a deposit's body.
    pub body_bytes_max: usize,
    /// Connections at once.
    pub connections_max: usize,
    /// Connections of one IPv4 address or IPv6 /64 network at once.
    pub connections_per_address_max: NonZeroUsize,
    /// Collects that may wait for mail at once; one more is answered at once.
    pub waiting_collects_max: usize,
    /// The same for one mailbox.
    pub waiting_collects_per_mailbox_max: usize,
    /// The same for one address.
    pub waiting_collects_per_address_max: usize,
    /// Requests of one address a second, before anything of them is looked at.
    pub requests_per_address_per_second: NonZeroU32,
    /// Requests that one address may make at once, above that rate.
    pub requests_per_address_burst: NonZeroU32,
    /// Requests of one server a second, once its signature is verified.
    pub requests_per_origin_per_second: NonZeroU32,
    /// Requests that one server may make at once, above that rate.
    pub requests_per_origin_burst: NonZeroU32,
    /// Requests of one address a minute that bring a server which is not known yet: its keys have to be fetched, or it registers.
    pub newcomers_per_address_per_minute: NonZeroU32,
}

/// `[mailbox]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MailboxSection {
    /// How long mail is kept.
    pub time_to_live: Period,
    /// How long a server may be silent until its registration lapses, if nobody but itself asked for that.
    pub lapse_after: Period,
    /// Envelopes in one mailbox.
    pub envelopes_max: u64,
    /// Bytes in one mailbox.
    pub bytes_max: u64,
    /// Envelopes of one origin in one mailbox.
    pub origin_envelopes_max: u64,
    /// Bytes of one origin in one mailbox.
    pub origin_bytes_max: u64,
}

/// `[storage]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageSection {
    /// Envelopes in all mailboxes together.
    pub total_envelopes_max: u64,
    /// Bytes in all mailboxes together.
    pub total_bytes_max: u64,
    /// Mailboxes, beyond which only registered servers get one.
    pub mailboxes_max: u64,
    /// Free bytes of the disk below which no mail is taken.
    pub free_disk_bytes_min: u64,
}

/// `[onward]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OnwardSection {
    /// Whether mail is delivered onward at all.
    pub enabled: bool,
    /// Beside those that the operator listed or invited: registered servers whose mail is, if they ask for it.
    pub origins: Vec<ServerGlob>,
    /// Envelopes of one origin to all destinations together.
    pub origin_envelopes_max: u64,
    /// Bytes of one origin to all destinations together.
    pub origin_bytes_max: u64,
    /// Destinations for which mail of one origin waits at the same time.
    pub origin_destinations_max: u64,
    /// Mailboxes that are there for nothing but mail to be delivered onward.
    pub mailboxes_max: u64,
    /// Envelopes of one origin to one destination.
    pub destination_envelopes_max: u64,
    /// Bytes of one origin to one destination.
    pub destination_bytes_max: u64,
    /// How long after the first call in vain a destination is called again.
    pub retry_after_first: Period,
    /// How long after a call in vain a destination is called again at most.
    pub retry_after_max: Period,
    /// How long the mail of an origin rests that has come back.
    pub pause_after_return: Period,
}

/// `[at_rest]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AtRestSection {
    /// The keys with which mail is sealed; absent: it is not.
    pub key_file: Option<PathBuf>,
}

/// `[operators]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OperatorsSection {
    /// Address of health, readiness, metrics and the admin API.
    pub listen: SocketAddr,
    /// Lets that address be another than a loopback one.
    pub beyond_loopback: bool,
    /// Names by which it may be called there, beside IP addresses and `localhost`.
    pub hosts: Vec<String>,
}

/// A node has a handful of connections, so that a site with twenty homeservers behind one address fits; and it takes 64
/// addresses to have all 8,192.
const CONNECTIONS_PER_ADDRESS_MAX: NonZeroUsize = NonZeroUsize::new(128).unwrap();

/// 8090 is free of well-known uses and one hand away from Synapse's 8008 and 8448.
const LISTEN_PORT: u16 = 8090;
/// The next one.
const OPERATORS_PORT: u16 = 8091;

const fn rate(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("no rate here is 0")
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], LISTEN_PORT)),
            data: PathBuf::from("./restante-data"),
            server_name: None,
            signing_key: None,
            serve: Serve::Open,
            listed: Vec::new(),
            public_url: None,
            tls: None,
            trusted_proxies: Vec::new(),
            limits: LimitsSection::default(),
            mailbox: MailboxSection::default(),
            storage: StorageSection::default(),
            onward: OnwardSection::default(),
            at_rest: AtRestSection::default(),
            operators: OperatorsSection::default(),
            log: LogSection::default(),
            federation: FederationSection::default(),
            keys: KeysSection::default(),
        }
    }
}

impl Default for LimitsSection {
    fn default() -> Self {
        // A waiting collect holds a socket and some kilobytes: 4,096 stay under 64 MiB.
        Self {
            body_bytes_max: limits::BODY_BYTES_MAX,
            connections_max: 8192,
            connections_per_address_max: CONNECTIONS_PER_ADDRESS_MAX,
            waiting_collects_max: 4096,
            // A node waits in one place; a second one during its restart, and some more for proxies that keep up
            // what its caller has given up.
            waiting_collects_per_mailbox_max: 16,
            // A site with twenty homeservers has a place for each, many times over; and it takes 16 addresses to have
            // all 4,096.
            waiting_collects_per_address_max: 256,
            // A node gathers what its homeserver sends within a second, so that a busy homeserver with a hundred
            // destinations away makes a hundred requests a second; four of them may share an address.
            requests_per_address_per_second: rate(400),
            // Ten seconds of that rate at once: what has gathered while the relay was away.
            requests_per_address_burst: rate(4000),
            // Twice that homeserver. A Dendrite node that collects one at a time takes 200 a second.
            requests_per_origin_per_second: rate(200),
            requests_per_origin_burst: rate(2000),
            // An honest server is fetched once and then known, and few share an address; each of these may keep
            // one of 32 look-ups busy for some seconds.
            newcomers_per_address_per_minute: rate(60),
        }
    }
}

impl Default for MailboxSection {
    fn default() -> Self {
        // A month of a busy homeserver's mail: 100,000 transactions of 10 KiB.
        Self {
            time_to_live: Period(limits::TIME_TO_LIVE),
            // A server that is away for a season comes back to what it had; its node registers anew in any case.
            lapse_after: Period(Duration::from_secs(90 * 24 * 3600)),
            envelopes_max: 100_000,
            bytes_max: 1024 * 1024 * 1024,
            // A quarter: most of a mailbox often comes from one large server, and three more have to fail with it
            // before a fifth finds no room.
            origin_envelopes_max: 25_000,
            origin_bytes_max: 256 * 1024 * 1024,
        }
    }
}

impl Default for StorageSection {
    fn default() -> Self {
        Self {
            // A hundred full mailboxes: what one disk writes and one machine backs up.
            total_envelopes_max: 10_000_000,
            total_bytes_max: 100 * 1024 * 1024 * 1024,
            // Anybody can make up names; a relay for everybody serves some hundreds of servers.
            mailboxes_max: 10_000,
            // SQLite's log grows before it is moved, and acknowledging needs room as well.
            free_disk_bytes_min: 512 * 1024 * 1024,
        }
    }
}

impl Default for OnwardSection {
    fn default() -> Self {
        Self {
            enabled: true,
            // Strangers make up names, and need nobody to let them in where a relay is open.
            origins: Vec::new(),
            // As much as one origin may fill of a mailbox: here it is spread over many destinations.
            origin_envelopes_max: 25_000,
            origin_bytes_max: 256 * 1024 * 1024,
            // As many servers are in the largest rooms of a small homeserver, and most of them are up; others wait in its node.
            origin_destinations_max: 500,
            // Twenty origins with all that each may have: as many as strangers may make.
            mailboxes_max: 10_000,
            // A week of a lively room, at a transaction every two minutes; a stock homeserver that was away for longer takes
            // days to catch up.
            destination_envelopes_max: 5_000,
            destination_bytes_max: 64 * 1024 * 1024,
            // What a homeserver takes to restart.
            retry_after_first: Period::seconds(30),
            // A homeserver that is back for an hour a day is met.
            retry_after_max: Period::seconds(3600),
            // What a homeserver's queue takes to begin to move again.
            pause_after_return: Period::seconds(120),
        }
    }
}

impl Default for OperatorsSection {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], OPERATORS_PORT)),
            beyond_loopback: false,
            hosts: Vec::new(),
        }
    }
}
