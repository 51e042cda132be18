//! Sections of configuration files that every program of ours shares.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use jiff::SignedDuration;
use restante_federation_proto::ServerName;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::client::{AddressPolicy, ClientConfig, DnsConfig};
use crate::exchange::{BaseUrl, Peer};
use crate::key_ring::Notary;

/// A length of time, written as in `30d`, `45s` or `1h 30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

impl Period {
    /// Of whole seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // A day is 24 hours here; jiff leaves days to calendars.
        let relative = jiff::SpanRelativeTo::days_are_24_hours();
        let span: jiff::Span = text.parse().map_err(|_| unreadable(&text))?;
        let length: SignedDuration = span.to_duration(relative).map_err(|_| unreadable(&text))?;
        Duration::try_from(length).map(Self).map_err(|_| unreadable(&text))
    }
}

fn unreadable<E: de::Error>(text: &str) -> E {
    E::custom(format!("{text:?} is not a length of time such as \"45s\", \"5m\" or \"30d\""))
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = SignedDuration::try_from(self.0).unwrap_or(SignedDuration::MAX);
        write!(f, "{length:#}")
    }
}

/// The section `[federation]`: how to reach other servers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FederationSection {
    /// Servers whose URL is known; they skip discovery.
    pub routes: BTreeMap<ServerName, BaseUrl>,
    /// `"system"`, `"off"`, or a list of name servers.
    pub dns: DnsSection,
    /// Ranges that may be called in spite of the deny list of private addresses.
    pub allow_networks: Vec<IpNet>,
    /// PEM files with further certificate authorities.
    pub extra_ca_files: Vec<PathBuf>,
    /// Refuse requests whose X-Matrix header does not name its destination.
    pub require_destination: bool,
}

/// Where to ask for DNS records.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"system\", \"off\" or a list of name servers such as [\"192.0.2.1:53\"]"
)]
pub enum DnsSection {
    /// A word.
    Word(DnsWord),
    /// These name servers.
    Servers(Vec<SocketAddr>),
}

/// The words that [`DnsSection`] knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DnsWord {
    /// What the system is configured with.
    System,
    /// Nobody: only routes and IP literals are reachable.
    Off,
}

impl Default for DnsSection {
    fn default() -> Self {
        Self::Word(DnsWord::System)
    }
}

impl FederationSection {
    /// The client's configuration.
    pub fn client_config(&self) -> ClientConfig {
        ClientConfig {
            routes: self.routes.clone(),
            addresses: AddressPolicy { allow_networks: self.allow_networks.clone() },
            dns: match &self.dns {
                DnsSection::Word(DnsWord::System) => DnsConfig::System,
                DnsSection::Word(DnsWord::Off) => DnsConfig::Off,
                DnsSection::Servers(servers) => DnsConfig::Servers(servers.clone()),
            },
            extra_ca_files: self.extra_ca_files.clone(),
            web_sites: BTreeMap::new(),
        }
    }
}

/// The section `[keys]`: whose word counts for the keys of servers that can't be asked themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeysSection {
    /// Notaries.
    pub notaries: Vec<PeerSection>,
}

impl KeysSection {
    /// The notaries, as the key ring takes them.
    pub fn notaries(&self) -> Vec<Notary> {
        self.notaries.iter().map(|peer| Notary { peer: peer.clone().into() }).collect()
    }
}

/// A server, with its URL when discovery can't find it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerSection {
    /// Its name.
    pub server_name: ServerName,
    /// Its URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<BaseUrl>,
}

impl From<PeerSection> for Peer {
    fn from(section: PeerSection) -> Self {
        Self::new(section.server_name, section.url)
    }
}

/// A section `tls`: certificate files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSection {
    /// The chain, PEM, leaf first.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

impl From<TlsSection> for crate::serve::TlsFiles {
    fn from(section: TlsSection) -> Self {
        Self { certificate: section.certificate, key: section.key }
    }
}
