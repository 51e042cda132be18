//! The direct transport: HTTPS with Matrix server discovery, pooled connections, and a deny list of addresses.

mod connector;
mod dial;
mod link;
mod steps;
mod tls;
mod web;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body_util::BodyExt;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::client::legacy::{Client, Error as PoolError};
use hyper_util::rt::TokioTimer;
use ipnet::IpNet;
use restante_federation_proto::{Clock, ServerName};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::body::{Body, BoxError, collect_limited, empty};
use crate::discovery::resolver::{NoResolver, Resolver, resolver};
use crate::discovery::well_known::WELL_KNOWN_BYTES_MAX;
use crate::discovery::{Discovery, deny_list};
use crate::exchange::{
    BaseUrl, Exchange, ExchangeError, NamedBy, Patience, Peer, Stage, WebFileError,
};
use crate::executor::TaskOwner;
use connector::{Connector, DISCOVERED, STRANGERS_HTTP, STRANGERS_HTTPS};
use dial::{DialError, Dialer};
pub use steps::Way;
use web::HttpsWeb;

/// Idle connections that are kept per server.
const IDLE_PER_SERVER_MAX: usize = 4;
/// How long an idle connection is kept: shorter than servers keep it (ours for 30 s), so that they don't close it under
/// a request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// The share of the patience for connecting that a well-known look-up may use up, so that a silent web server leaves
/// time for the homeserver behind it.
const WELL_KNOWN_SHARE: u32 = 2;

/// Which resolved addresses may be called. Private, loopback, link-local and other special-purpose ranges are denied
/// unless allowed here; addresses that an operator wrote as a URL are never checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Ranges to allow in spite of the deny list.
    pub allow_networks: Vec<IpNet>,
}

impl AddressPolicy {
    /// Whether a stranger's name may lead to `address`: it is public, or in a range that is allowed.
    pub fn allows(&self, address: std::net::IpAddr) -> bool {
        deny_list::allows(self, address)
    }
}

/// Where to ask for DNS records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DnsConfig {
    /// What the system is configured with.
    #[default]
    System,
    /// These name servers.
    Servers(Vec<SocketAddr>),
    /// Nobody: only URLs, routes and IP literals are reachable.
    Off,
}

/// How to reach other servers.
#[derive(Debug, Clone, Default)]
pub struct ClientConfig {
    /// Servers whose URL the operator knows; they skip discovery.
    pub routes: BTreeMap<ServerName, BaseUrl>,
    /// Address policy.
    pub addresses: AddressPolicy,
    /// DNS.
    pub dns: DnsConfig,
    /// PEM files with further certificate authorities, beside the system's.
    pub extra_ca_files: Vec<PathBuf>,
    /// Servers whose web site's URL the operator knows; for others the name itself is asked for it.
    pub web_sites: BTreeMap<ServerName, BaseUrl>,
}

/// The configuration can't be used; the message names file and reason.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ClientConfigError(pub String);

/// The direct transport. Dropping it ends its connections, answers that are still streaming included.
pub struct FederationClient {
    routes: BTreeMap<ServerName, BaseUrl>,
    web_sites: BTreeMap<ServerName, BaseUrl>,
    discovery: Arc<Discovery>,
    dialer: Arc<Dialer>,
    pool: Client<Connector, Body>,
    _tasks: TaskOwner,
}

/// Where a request goes: what the pool knows its connections by, and what `Host` says.
struct Place {
    scheme: &'static str,
    authority: String,
    host_header: String,
}

impl FederationClient {
    /// Builds the client; reads the certificate authorities.
    pub fn new(config: ClientConfig, clock: Arc<dyn Clock>) -> Result<Self, ClientConfigError> {
        let tls = tls::client_config(&config.extra_ca_files).map_err(ClientConfigError)?;
        let resolver: Arc<dyn Resolver> = match resolver(&config.dns) {
            Ok(resolver) => Arc::from(resolver),
            // A machine without DNS may still reach everybody whom it has to by routes.
            Err(reason) if config.dns == DnsConfig::System => {
                tracing::warn!(reason, "only servers with a route can be reached");
                Arc::new(NoResolver)
            }
            Err(reason) => return Err(ClientConfigError(reason)),
        };
        let dialer =
            Arc::new(Dialer { resolver: resolver.clone(), policy: config.addresses.clone(), tls });
        let web = Arc::new(HttpsWeb(dialer.clone()));
        let discovery = Arc::new(Discovery::new(resolver, web, clock));
        let tasks = TaskOwner::new();
        let pool = Client::builder(tasks.executor())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_PER_SERVER_MAX)
            .set_host(false)
            // Only what no connection has begun to send is tried again, on another connection.
            .retry_canceled_requests(true)
            .build(Connector { dialer: dialer.clone(), discovery: discovery.clone() });
        let ClientConfig { routes, web_sites, .. } = config;
        Ok(Self { routes, web_sites, discovery, dialer, pool, _tasks: tasks })
    }

    async fn place(&self, peer: &Peer, patience: Duration) -> Result<Place, ExchangeError> {
        let route = self.routes.get(&peer.name);
        match (peer.named_by, &peer.url, route) {
            (NamedBy::Operator, Some(url), _) | (_, None, Some(url)) => {
                return Ok(place_of_url(url, NamedBy::Operator));
            }
            (NamedBy::Stranger, Some(_), Some(route)) => {
                return Ok(place_of_url(route, NamedBy::Operator));
            }
            (NamedBy::Stranger, Some(url), None) => {
                return Ok(place_of_url(url, NamedBy::Stranger));
            }
            (_, None, None) => {}
        }
        let unresolvable = |reason: &str| ExchangeError::Unresolvable {
            server: peer.name.clone(),
            reason: reason.to_owned(),
        };
        if peer.name.public_key().is_some() {
            return Err(unresolvable("it is named by its key; give it a URL or a route"));
        }
        let named = self.discovery.named(&peer.name, patience / WELL_KNOWN_SHARE).await;
        let named = named.ok_or_else(|| unresolvable("it is neither a DNS name nor an address"))?;
        Ok(Place {
            scheme: DISCOVERED,
            authority: peer.name.as_str().to_owned(),
            host_header: named.text,
        })
    }
}

/// The pool keeps connections apart by their scheme, so that a stranger's URL meets none that the operator's word opened.
fn place_of_url(url: &BaseUrl, named_by: NamedBy) -> Place {
    let (scheme, default_port) = match (url.tls, named_by) {
        (true, NamedBy::Operator) => ("https", 443),
        (false, NamedBy::Operator) => ("http", 80),
        (true, NamedBy::Stranger) => (STRANGERS_HTTPS, 443),
        (false, NamedBy::Stranger) => (STRANGERS_HTTP, 80),
    };
    let authority = format!("{}:{}", url.host, url.port);
    let host_header = if url.port == default_port { url.host.clone() } else { authority.clone() };
    Place { scheme, authority, host_header }
}

#[async_trait]
impl Exchange for FederationClient {
    async fn exchange(
        &self,
        peer: &Peer,
        request: Request<Body>,
        patience: Patience,
    ) -> Result<Response<Body>, ExchangeError> {
        let server = &peer.name;
        let late = |stage| ExchangeError::Timeout { server: server.clone(), stage };
        let connect_by = Instant::now() + patience.connect;

        let place = timeout_at(connect_by, self.place(peer, patience.connect)).await;
        let place = place.map_err(|_| late(Stage::Connect))??;
        let mut request = addressed(request, &place)
            .map_err(|source| ExchangeError::Connect { server: server.clone(), source })?;
        let mut connection = capture_connection(&mut request);
        let mut answer = pin!(self.pool.request(request));
        let answered = tokio::select! {
            biased;
            answered = &mut answer => answered,
            () = async { drop(connection.wait_for_connection_metadata().await) } => {
                timeout(patience.answer, answer).await.map_err(|_| late(Stage::Answer))?
            }
            () = sleep_until(connect_by) => return Err(late(Stage::Connect)),
        };
        match answered {
            Ok(response) => Ok(response.map(|body| body.map_err(Into::into).boxed_unsync())),
            Err(error) if connection.connection_metadata().is_some() => {
                Err(ExchangeError::Broken { server: server.clone(), source: error.into() })
            }
            Err(error) => Err(not_connected(server, error)),
        }
    }

    async fn leads_to(&self, server: &ServerName, patience: Duration) -> Option<String> {
        if let Some(url) = self.routes.get(server) {
            return Some(url.host.to_ascii_lowercase());
        }
        let way = timeout(patience, self.way(server, patience)).await.ok()?.ok()?;
        let (host, _) = way.destinations.into_iter().next()?;
        Some(host.to_ascii_lowercase())
    }

    async fn web_file(
        &self,
        server: &ServerName,
        path: &'static str,
        patience: Duration,
    ) -> Result<Bytes, WebFileError> {
        let file = async {
            match self.web_sites.get(server) {
                Some(site) => self.file_of_operators_site(site, path).await,
                None => self.discovery.web_file(server, path).await,
            }
        };
        let file = timeout(patience, file).await;
        file.unwrap_or_else(|_| Err(format!("the web site of {server} did not answer in time")))
            .map_err(WebFileError)
    }
}

impl FederationClient {
    /// Nothing is followed from there: the operator's word is about this site alone.
    async fn file_of_operators_site(
        &self,
        site: &BaseUrl,
        path: &'static str,
    ) -> Result<Bytes, String> {
        let mut request = Request::new(empty());
        *request.uri_mut() = Uri::from_static(path);
        let request = addressed(request, &place_of_url(site, NamedBy::Operator));
        let request = request.map_err(|error| error.to_string())?;
        let answer = self.pool.request(request).await.map_err(|error| error.to_string())?;
        if answer.status() != StatusCode::OK {
            return Err(format!("{site} answered {}", answer.status()));
        }
        let body = collect_limited(answer.into_body(), WELL_KNOWN_BYTES_MAX).await;
        body.map_err(|error| format!("{site}: {error}"))
    }
}

/// The request as the pool takes it. The target is not touched: signatures are over its bytes.
fn addressed(mut request: Request<Body>, place: &Place) -> Result<Request<Body>, BoxError> {
    let target = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::builder()
        .scheme(place.scheme)
        .authority(place.authority.as_str())
        .path_and_query(target.unwrap_or_else(|| PathAndQuery::from_static("/")))
        .build()?;
    *request.version_mut() = Version::HTTP_11;
    let host = HeaderValue::from_str(&place.host_header)?;
    request.headers_mut().insert(header::HOST, host);
    Ok(request)
}

fn not_connected(server: &ServerName, error: PoolError) -> ExchangeError {
    let server = server.clone();
    match error.source().and_then(|source| source.downcast_ref::<DialError>()) {
        Some(DialError::Unresolvable(reason)) => {
            ExchangeError::Unresolvable { server, reason: reason.clone() }
        }
        Some(DialError::Denied(address)) => ExchangeError::Denied { server, address: *address },
        _ => ExchangeError::Connect { server, source: error.into() },
    }
}
