//! The relay's configuration file; every key has a default, so that no file is needed.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use ipnet::IpNet;
use restante_federation::config::{FederationSection, KeysSection, Period, TlsSection};
use restante_federation_proto::ServerName;
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
    /// Certificate files; absent: plain HTTP.
    pub tls: Option<TlsSection>,
    /// Networks of reverse proxies that are not on loopback; their connections are not counted per address.
    pub trusted_proxies: Vec<IpNet>,
    /// Bounds of requests.
    pub limits: LimitsSection,
    /// Bounds of mailboxes.
    pub mailbox: MailboxSection,
    /// How to reach other servers.
    pub federation: FederationSection,
    /// Whose word counts for keys.
    pub keys: KeysSection,
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
}

/// `[mailbox]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MailboxSection {
    /// How long mail is kept.
    pub time_to_live: Period,
    /// Envelopes in one mailbox.
    pub envelopes_max: u64,
    /// Bytes in one mailbox.
    pub bytes_max: u64,
}

/// A node has a handful of connections, so that a site with twenty homeservers behind one address fits; and it takes 64
/// addresses to have all 8,192.
const CONNECTIONS_PER_ADDRESS_MAX: NonZeroUsize = NonZeroUsize::new(128).unwrap();

/// 8090 is free of well-known uses and one hand away from Synapse's 8008 and 8448.
const LISTEN_PORT: u16 = 8090;

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], LISTEN_PORT)),
            data: PathBuf::from("./restante-data"),
            server_name: None,
            signing_key: None,
            tls: None,
            trusted_proxies: Vec::new(),
            limits: LimitsSection::default(),
            mailbox: MailboxSection::default(),
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
        }
    }
}

impl Default for MailboxSection {
    fn default() -> Self {
        // A month of a busy homeserver's mail: 100,000 transactions of 10 KiB.
        Self {
            time_to_live: Period(limits::TIME_TO_LIVE),
            envelopes_max: 100_000,
            bytes_max: 1024 * 1024 * 1024,
        }
    }
}
