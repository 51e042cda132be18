//! The steps on the way to a server one by one, for whoever looks for the one that fails.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use restante_federation_proto::ServerName;
use rustls::ClientConfig;

use super::FederationClient;
use crate::discovery::name::Host;

/// Where discovery leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The name that stands for the server: what `Host` says, and whom the certificate must name.
    pub named: String,
    /// Hosts and ports to connect to, in the order of trial.
    pub destinations: Vec<(String, u16)>,
}

impl FederationClient {
    /// Where discovery leads from `server`: its well-known file and its SRV records. The error says what is missing.
    pub async fn way(&self, server: &ServerName, patience: Duration) -> Result<Way, String> {
        let named = self.discovery.named(server, patience).await;
        let named =
            named.ok_or_else(|| format!("{server} is neither a DNS name nor an address"))?;
        let destinations = self.discovery.destinations(&named).await;
        let destinations = destinations.map_err(|error| error.to_string())?;
        let destinations = destinations.into_iter().map(|to| match to.host {
            Host::Ip(address) => (address.to_string(), to.port),
            Host::Dns(name) => (name, to.port),
        });
        Ok(Way { named: named.text, destinations: destinations.collect() })
    }

    /// The addresses of `host`; DNS is asked only if it is a name.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        match Host::parse(host) {
            Some(Host::Ip(address)) => Ok(vec![address]),
            Some(Host::Dns(name)) => {
                let found = self.dialer.addresses_of_name(&name).await;
                found.map_err(|error| error.to_string())
            }
            None => Err(format!("{host} is neither a DNS name nor an address")),
        }
    }

    /// Whom this client trusts, and how it speaks TLS.
    pub fn tls(&self) -> Arc<ClientConfig> {
        self.dialer.tls.clone()
    }
}
