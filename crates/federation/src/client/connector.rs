//! Connects the pool: a URI names either an operator's URL or, with the scheme [`DISCOVERED`], a server to be discovered.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Uri;
use restante_federation_proto::ServerName;
use tokio::time::timeout;
use tower::Service;

use super::dial::{DialError, Dialer, Source};
use super::link::Link;
use crate::discovery::name::Host;
use crate::discovery::{Destination, Discovery};

/// The scheme of URIs whose authority is a server name.
pub(crate) const DISCOVERED: &str = "matrix";
/// The schemes of URLs that a stranger wrote: they lead nowhere but to addresses that strangers' names may lead to.
pub(crate) const STRANGERS_HTTPS: &str = "strangers-https";
/// The same without TLS: whoever is on the path could answer in the relay's place, so they lead to networks alone that the
/// operator allows.
pub(crate) const STRANGERS_HTTP: &str = "strangers-http";
/// No connection attempt takes longer, whoever waits for it.
const CONNECT_MAX: Duration = Duration::from_secs(60);

/// What the pool asks for connections.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) discovery: Arc<Discovery>,
}

impl Service<Uri> for Connector {
    type Response = Link;
    type Error = DialError;
    type Future = BoxFuture<'static, Result<Link, DialError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            timeout(CONNECT_MAX, connector.connect(&uri)).await.unwrap_or_else(|_| {
                Err(DialError::Connect(io::Error::from(io::ErrorKind::TimedOut).into()))
            })
        })
    }
}

impl Connector {
    async fn connect(&self, uri: &Uri) -> Result<Link, DialError> {
        match uri.scheme_str() {
            Some(DISCOVERED) => self.connect_by_name(uri).await,
            Some(STRANGERS_HTTPS) => self.connect_by_url(uri, Tls::On, Source::Discovery).await,
            Some(STRANGERS_HTTP) => self.connect_by_url(uri, Tls::Off, Source::InClear).await,
            Some("https") => self.connect_by_url(uri, Tls::On, Source::Operator).await,
            _ => self.connect_by_url(uri, Tls::Off, Source::Operator).await,
        }
    }

    async fn connect_by_name(&self, uri: &Uri) -> Result<Link, DialError> {
        let name = uri.authority().and_then(|name| name.as_str().parse::<ServerName>().ok());
        let name = name.ok_or_else(|| DialError::Unresolvable("it is no server name".into()))?;
        let named = self.discovery.named(&name, CONNECT_MAX).await;
        let named = named.ok_or_else(|| DialError::Unresolvable("it is no DNS name".into()))?;
        let destinations = self.discovery.destinations(&named).await;
        let destinations =
            destinations.map_err(|error| DialError::Unresolvable(error.to_string()))?;
        self.dialer.dial(&destinations, Some(&named.host), Source::Discovery).await
    }

    async fn connect_by_url(&self, uri: &Uri, tls: Tls, source: Source) -> Result<Link, DialError> {
        let host = uri.host().and_then(Host::parse);
        let host = host.ok_or_else(|| DialError::Unresolvable("its URL has no host".into()))?;
        let port = uri.port_u16().unwrap_or(if tls == Tls::On { 443 } else { 80 });
        let destination = Destination { host: host.clone(), port };
        self.dialer.dial(&[destination], (tls == Tls::On).then_some(&host), source).await
    }
}

/// Whether a URL speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tls {
    On,
    Off,
}
