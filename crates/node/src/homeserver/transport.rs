//! Plain HTTP to the homeserver's own listener, with pooled connections.

use std::time::Duration;

use async_trait::async_trait;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::BodyExt;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use restante_federation::{
    BaseUrl, Body, BoxError, Exchange, ExchangeError, Patience, Peer, Stage,
};

/// Below the 60 s after which Synapse closes an idle connection, so that requests do not meet a closed one.
const IDLE_CONNECTION: Duration = Duration::from_secs(15);

/// How long the homeserver's listener may take to accept.
const CONNECT: Duration = Duration::from_secs(5);

pub(super) struct Transport {
    url: BaseUrl,
    client: Client<HttpConnector, Body>,
}

impl Transport {
    pub(super) fn new(url: BaseUrl) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_CONNECTION)
            .pool_timer(TokioTimer::new())
            // A `Host` that a caller sent is passed on as it is.
            .set_host(false)
            .build(connector);
        Self { url, client }
    }

    /// Adds scheme and authority, which hyper dials by; the target goes out byte for byte.
    fn address(&self, request: &mut Request<Body>) -> Result<(), BoxError> {
        let authority: Authority = format!("{}:{}", self.url.host, self.url.port).parse()?;
        let host = HeaderValue::from_str(authority.as_str())?;
        request.headers_mut().entry(header::HOST).or_insert(host);
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(authority);
        *request.uri_mut() = Uri::from_parts(parts)?;
        *request.version_mut() = http::Version::HTTP_11;
        Ok(())
    }
}

#[async_trait]
impl Exchange for Transport {
    async fn exchange(
        &self,
        peer: &Peer,
        mut request: Request<Body>,
        patience: Patience,
    ) -> Result<Response<Body>, ExchangeError> {
        let server = peer.name.clone();
        self.address(&mut request)
            .map_err(|source| ExchangeError::Connect { server: server.clone(), source })?;
        let answer = tokio::time::timeout(patience.answer, self.client.request(request)).await;
        match answer {
            Ok(Ok(response)) => Ok(response.map(|body| body.map_err(Into::into).boxed_unsync())),
            Ok(Err(error)) => Err(failure(server, error)),
            Err(_) => Err(ExchangeError::Timeout { server, stage: Stage::Answer }),
        }
    }
}

fn failure(server: restante_federation_proto::ServerName, error: Error) -> ExchangeError {
    if error.is_connect() {
        ExchangeError::Connect { server, source: error.into() }
    } else {
        ExchangeError::Broken { server, source: error.into() }
    }
}
