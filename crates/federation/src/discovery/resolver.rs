//! The seam to DNS, and what stands behind it.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData};

use super::srv::SrvRecord;
use crate::client::DnsConfig;

/// Answers that the resolver remembers, as long as they say themselves.
const CACHED_ANSWERS_MAX: u64 = 4096;
/// One question to one name server.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(3);
/// No answer, positive or negative, is remembered for longer than this.
const ANSWER_TTL_MAX: Duration = Duration::from_hours(1);

/// Why DNS gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error("DNS has no record of {0}")]
    Nothing(String),
    #[error("DNS did not answer about {name}: {reason}")]
    Failed { name: String, reason: String },
    #[error("DNS is off; give the server a route with an IP address")]
    Off,
}

/// Asks DNS.
#[async_trait]
pub(crate) trait Resolver: Send + Sync + 'static {
    /// The addresses of `host`.
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError>;
    /// The SRV records of `name`.
    async fn services(&self, name: &str) -> Result<Vec<SrvRecord>, ResolveError>;
}

/// Asks nobody.
pub(crate) struct NoResolver;

#[async_trait]
impl Resolver for NoResolver {
    async fn addresses(&self, _host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        Err(ResolveError::Off)
    }

    async fn services(&self, _name: &str) -> Result<Vec<SrvRecord>, ResolveError> {
        Err(ResolveError::Off)
    }
}

/// The resolver that `config` asks for.
pub(crate) fn resolver(config: &DnsConfig) -> Result<Box<dyn Resolver>, String> {
    let mut builder = match config {
        DnsConfig::Off => return Ok(Box::new(NoResolver)),
        DnsConfig::System => TokioResolver::builder_tokio()
            .map_err(|error| format!("cannot read the system's DNS configuration: {error}"))?,
        DnsConfig::Servers(servers) => {
            let servers = servers.iter().map(|server| {
                let mut config = NameServerConfig::udp_and_tcp(server.ip());
                for connection in &mut config.connections {
                    connection.port = server.port();
                }
                config
            });
            TokioResolver::builder_with_config(
                ResolverConfig::from_name_servers(servers.collect()),
                TokioRuntimeProvider::default(),
            )
        }
    };
    set_limits(builder.options_mut());
    let resolver = builder.build().map_err(|error| format!("cannot set up DNS: {error}"))?;
    Ok(Box::new(Hickory(resolver)))
}

fn set_limits(options: &mut ResolverOpts) {
    options.cache_size = CACHED_ANSWERS_MAX;
    options.timeout = QUESTION_TIMEOUT;
    options.positive_max_ttl = Some(ANSWER_TTL_MAX);
    options.negative_max_ttl = Some(ANSWER_TTL_MAX);
}

struct Hickory(TokioResolver);

#[async_trait]
impl Resolver for Hickory {
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let found = self.0.lookup_ip(absolute(host)?).await;
        Ok(found.map_err(|error| refusal(host, &error))?.iter().collect())
    }

    async fn services(&self, name: &str) -> Result<Vec<SrvRecord>, ResolveError> {
        let found = self.0.srv_lookup(absolute(name)?).await;
        Ok(srv_records(&found.map_err(|error| refusal(name, &error))?))
    }
}

/// An absolute name, so that no search domain of this machine is appended.
fn absolute(host: &str) -> Result<Name, ResolveError> {
    let mut name = Name::from_ascii(host).map_err(|error| ResolveError::Failed {
        name: host.to_owned(),
        reason: error.to_string(),
    })?;
    name.set_fqdn(true);
    Ok(name)
}

fn srv_records(lookup: &Lookup) -> Vec<SrvRecord> {
    let records = lookup.answers().iter().filter_map(|record| match &record.data {
        RData::SRV(srv) => Some(SrvRecord {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: srv.target.to_ascii().trim_end_matches('.').to_owned(),
        }),
        _ => None,
    });
    records.collect()
}

fn refusal(name: &str, error: &NetError) -> ResolveError {
    if error.is_nx_domain() || error.is_no_records_found() {
        return ResolveError::Nothing(name.to_owned());
    }
    ResolveError::Failed { name: name.to_owned(), reason: error.to_string() }
}

/// A resolver that knows what a test tells it.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct TableResolver {
    pub(crate) hosts: std::collections::HashMap<String, Vec<IpAddr>>,
    pub(crate) services: std::collections::HashMap<String, Vec<SrvRecord>>,
}

#[cfg(test)]
#[async_trait]
impl Resolver for TableResolver {
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        self.hosts.get(host).cloned().ok_or_else(|| ResolveError::Nothing(host.into()))
    }

    async fn services(&self, name: &str) -> Result<Vec<SrvRecord>, ResolveError> {
        self.services.get(name).cloned().ok_or_else(|| ResolveError::Nothing(name.into()))
    }
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::op::{Message, ResponseCode};
    use hickory_resolver::proto::rr::rdata::{A, SRV};
    use hickory_resolver::proto::rr::{Record, RecordType};
    use tokio::net::UdpSocket;
    use tokio_util::task::AbortOnDropHandle;

    use super::*;

    /// A name server that knows `b.example` and its service, and of nothing else.
    async fn name_server() -> (DnsConfig, AbortOnDropHandle<()>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let config = DnsConfig::Servers(vec![socket.local_addr().unwrap()]);
        let task = tokio::spawn(async move {
            let mut packet = [0; 2048];
            loop {
                let (length, peer) = socket.recv_from(&mut packet).await.unwrap();
                let answer = answer(Message::from_vec(&packet[..length]).unwrap());
                socket.send_to(&answer.to_vec().unwrap(), peer).await.unwrap();
            }
        });
        (config, AbortOnDropHandle::new(task))
    }

    fn answer(question: Message) -> Message {
        let query = question.queries[0].clone();
        let name = query.name().clone();
        let data = match (name.to_ascii().as_str(), query.query_type()) {
            ("b.example.", RecordType::A) => Some(RData::A(A::new(127, 0, 0, 7))),
            ("_matrix-fed._tcp.b.example.", RecordType::SRV) => {
                let target = Name::from_ascii("Home.example.").unwrap();
                Some(RData::SRV(SRV::new(10, 5, 443, target)))
            }
            _ => None,
        };
        let mut answer = question.into_response();
        match data {
            Some(data) => {
                answer.add_answer(Record::from_rdata(name, 60, data));
            }
            None => answer.metadata.response_code = ResponseCode::NXDomain,
        }
        answer
    }

    #[tokio::test]
    async fn addresses_and_services_come_from_the_configured_name_servers() {
        let (config, _task) = name_server().await;
        let resolver = resolver(&config).unwrap();
        let address: IpAddr = "127.0.0.7".parse().unwrap();
        assert_eq!(resolver.addresses("b.example").await, Ok(vec![address]));
        let record =
            SrvRecord { priority: 10, weight: 5, port: 443, target: "Home.example".into() };
        assert_eq!(resolver.services("_matrix-fed._tcp.b.example").await, Ok(vec![record]));
        for missing in [
            resolver.addresses("gone.example").await.map(drop),
            resolver.services("_matrix._tcp.b.example").await.map(drop),
        ] {
            assert!(matches!(missing, Err(ResolveError::Nothing(_))), "{missing:?}");
        }
    }
}
