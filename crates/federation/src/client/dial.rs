//! Opens connections: addresses of each destination, checked, raced gently, and TLS on top.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustls::ClientConfig;
use rustls_pki_types::ServerName as TlsName;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::link::Link;
use crate::body::BoxError;
use crate::client::AddressPolicy;
use crate::discovery::Destination;
use crate::discovery::deny_list::{allows, is_listed};
use crate::discovery::name::Host;
use crate::discovery::resolver::Resolver;

/// Addresses of one host that are tried.
const ADDRESSES_MAX: usize = 8;
/// How long one address may stay alone before the next is tried as well (RFC 8305).
const HEAD_START: Duration = Duration::from_millis(250);
/// How long one destination may take while another one waits for its turn.
const TURN: Duration = Duration::from_secs(2);

/// Whose word an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// An operator wrote it: it may be private.
    Operator,
    /// A name of a stranger led there: it must be public or allowed.
    Discovery,
    /// A stranger wrote a URL without TLS: it must be in a network that the operator allows.
    InClear,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("no address found: {0}")]
    Unresolvable(String),
    #[error("the address {0} is not allowed")]
    Denied(IpAddr),
    #[error("cannot connect")]
    Connect(#[source] BoxError),
}

/// Opens connections.
pub(crate) struct Dialer {
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) policy: AddressPolicy,
    pub(crate) tls: Arc<ClientConfig>,
}

impl Dialer {
    /// A connection to the first of `destinations` that takes one; with TLS if there is a host that its certificate
    /// must name.
    pub(crate) async fn dial(
        &self,
        destinations: &[Destination],
        certificate_of: Option<&Host>,
        source: Source,
    ) -> Result<Link, DialError> {
        let mut last = DialError::Unresolvable("there is nowhere to connect to".into());
        for (index, destination) in destinations.iter().enumerate() {
            let attempt = self.dial_one(destination, certificate_of, source);
            let outcome = if index + 1 == destinations.len() {
                attempt.await
            } else {
                timeout(TURN, attempt).await.unwrap_or_else(|_| {
                    Err(DialError::Connect(io::Error::from(io::ErrorKind::TimedOut).into()))
                })
            };
            match outcome {
                Ok(link) => return Ok(link),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn dial_one(
        &self,
        destination: &Destination,
        certificate_of: Option<&Host>,
        source: Source,
    ) -> Result<Link, DialError> {
        let addresses = self.addresses(&destination.host, source).await?;
        let tcp = first_to_connect(&addresses, destination.port)
            .await
            .map_err(|error| DialError::Connect(error.into()))?;
        // Requests are written whole; waiting for more to send only delays them.
        let _ = tcp.set_nodelay(true);
        let Some(host) = certificate_of else { return Ok(Link::new(tcp)) };
        let name = tls_name(host).map_err(DialError::Connect)?;
        let tls = TlsConnector::from(self.tls.clone()).connect(name, tcp).await;
        tls.map(Link::new).map_err(|error| DialError::Connect(error.into()))
    }

    /// The addresses of a name that the operator wrote.
    pub(super) async fn addresses_of_name(&self, name: &str) -> Result<Vec<IpAddr>, DialError> {
        if name == "localhost" {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        self.resolved(name).await
    }

    async fn resolved(&self, name: &str) -> Result<Vec<IpAddr>, DialError> {
        let found = self.resolver.addresses(name).await;
        found.map_err(|error| DialError::Unresolvable(error.to_string()))
    }

    async fn addresses(&self, host: &Host, source: Source) -> Result<Vec<IpAddr>, DialError> {
        let found = match (host, source) {
            (Host::Ip(ip), _) => vec![*ip],
            (Host::Dns(name), Source::Operator) => self.addresses_of_name(name).await?,
            (Host::Dns(name), Source::Discovery | Source::InClear) => self.resolved(name).await?,
        };
        let Some(&first) = found.first() else {
            return Err(DialError::Unresolvable("the name has no address".into()));
        };
        let callable = |address: &IpAddr| match source {
            Source::Operator => true,
            Source::Discovery => allows(&self.policy, *address),
            Source::InClear => is_listed(&self.policy, *address),
        };
        let callable: Vec<_> = found.into_iter().filter(callable).collect();
        if callable.is_empty() {
            return Err(DialError::Denied(first));
        }
        Ok(alternating(callable))
    }
}

fn tls_name(host: &Host) -> Result<TlsName<'static>, BoxError> {
    match host {
        Host::Ip(ip) => Ok(TlsName::from(*ip)),
        Host::Dns(name) => Ok(TlsName::try_from(name.clone())?),
    }
}

/// IPv6 and IPv4 in turn, so that a family that does not work costs one head start.
fn alternating(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let (v6, v4): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv6);
    let longest = v6.len().max(v4.len());
    let in_turn = (0..longest).flat_map(|at| [v6.get(at).copied(), v4.get(at).copied()]);
    in_turn.flatten().take(ADDRESSES_MAX).collect()
}

async fn first_to_connect(addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let mut waiting = addresses.iter();
    let mut attempts = FuturesUnordered::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(TcpStream::connect(SocketAddr::new(*address, port)));
        }
        tokio::select! {
            done = attempts.next() => match done {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => last = error,
                None => return Err(last),
            },
            () = sleep(HEAD_START), if waiting.len() > 0 => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tls::client_config;
    use crate::discovery::resolver::TableResolver;

    fn dialer(resolver: TableResolver, allow: &[&str]) -> Dialer {
        let allow_networks = allow.iter().map(|net| net.parse().unwrap()).collect();
        Dialer {
            resolver: Arc::new(resolver),
            policy: AddressPolicy { allow_networks },
            tls: client_config(&[] as &[&str]).unwrap(),
        }
    }

    fn to(host: &str, port: u16) -> Destination {
        Destination { host: Host::parse(host).unwrap(), port }
    }

    fn table(hosts: &[(&str, &str)]) -> TableResolver {
        let mut resolver = TableResolver::default();
        for (host, address) in hosts {
            resolver.hosts.entry((*host).into()).or_default().push(address.parse().unwrap());
        }
        resolver
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_a_private_address_is_denied() {
        let dialer = dialer(table(&[("b.example", "127.0.0.1")]), &[]);
        for host in ["b.example", "127.0.0.1", "[::ffff:127.0.0.1]"] {
            let refused = dialer.dial(&[to(host, 1)], None, Source::Discovery).await;
            assert!(matches!(refused, Err(DialError::Denied(_))), "{host}");
        }
    }

    #[tokio::test]
    async fn the_next_destination_is_tried_when_one_refuses() {
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed_port = closed.local_addr().unwrap().port();
        drop(closed);
        let open = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open_port = open.local_addr().unwrap().port();
        let resolver = table(&[("home.example", "127.0.0.1"), ("relay.example", "127.0.0.1")]);
        let destinations = [to("home.example", closed_port), to("relay.example", open_port)];
        let dialer = dialer(resolver, &["127.0.0.0/8"]);
        assert!(dialer.dial(&destinations, None, Source::Discovery).await.is_ok());
    }

    #[tokio::test]
    async fn the_other_family_is_tried_when_one_does_not_work() {
        let open = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = open.local_addr().unwrap().port();
        // Nobody listens on ::1 at this port; 127.0.0.1 answers.
        let resolver = table(&[("b.example", "::1"), ("b.example", "127.0.0.1")]);
        let dialer = dialer(resolver, &["127.0.0.0/8", "::1/128"]);
        assert!(dialer.dial(&[to("b.example", port)], None, Source::Discovery).await.is_ok());
    }

    #[test]
    fn families_take_turns() {
        let addresses = ["1.1.1.1", "1.1.1.2", "::2"].map(|text| text.parse().unwrap());
        let shown: Vec<_> =
            alternating(addresses.to_vec()).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["::2", "1.1.1.1", "1.1.1.2"]);
    }
}
