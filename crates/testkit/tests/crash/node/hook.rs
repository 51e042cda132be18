//! A homeserver's way out: everything goes to its node, as Synapse's federation worker sends it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use restante_federation::{Body, Exchange, ExchangeError, Patience, Peer, collect_limited, full};
use restante_federation_proto::ServerName;
use restante_relay_api::endpoints::SEND;
use tokio::net::TcpStream;

use super::letters::Handed;

/// Bytes of a request or an answer here.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// The outbound door of one node.
pub(crate) struct Hook {
    /// `host:port`.
    pub(crate) address: String,
    pub(crate) secret: String,
    pub(crate) handed: Arc<Handed>,
}

#[async_trait]
impl Exchange for Hook {
    async fn exchange(
        &self,
        peer: &Peer,
        request: Request<Body>,
        patience: Patience,
    ) -> Result<Response<Body>, ExchangeError> {
        let server = peer.name.clone();
        let connecting = tokio::time::timeout(patience.connect, TcpStream::connect(&self.address));
        let connection = match connecting.await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                return Err(ExchangeError::Connect { server, source: error.into() });
            }
            Err(late) => return Err(ExchangeError::Connect { server, source: late.into() }),
        };
        let asked = tokio::time::timeout(patience.answer, self.ask(connection, &server, request));
        match asked.await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(text)) => Err(ExchangeError::Broken { server, source: text.into() }),
            Err(late) => Err(ExchangeError::Broken { server, source: late.into() }),
        }
    }
}

impl Hook {
    async fn ask(
        &self,
        connection: TcpStream,
        server: &ServerName,
        request: Request<Body>,
    ) -> Result<Response<Body>, String> {
        let (mut parts, body) = request.into_parts();
        let body = collect_limited(body, BYTES_MAX).await.map_err(text)?;
        let txn_id = parts.uri.path().strip_prefix(SEND).filter(|_| parts.method == Method::PUT);
        let txn_id = txn_id.map(str::to_owned);
        if let Some(txn_id) = &txn_id {
            self.handed.note_attempt(txn_id, &body);
        }
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        parts.uri = format!("matrix-federation://{server}{target}").parse().map_err(text)?;
        parts.headers.insert(HOST, HeaderValue::from_str(server.as_str()).map_err(text)?);
        let secret = HeaderValue::from_str(&format!("Bearer {}", self.secret)).map_err(text)?;
        parts.headers.insert(PROXY_AUTHORIZATION, secret);
        let request = Request::from_parts(parts, Full::new(body.clone()));
        let (status, answer) = one_request(connection, request).await?;
        if let Some(txn_id) = txn_id.filter(|_| status == StatusCode::OK) {
            self.handed.note_promise(&txn_id, &body);
        }
        let mut response = Response::new(full(answer));
        *response.status_mut() = status;
        Ok(response)
    }
}

async fn one_request(
    connection: TcpStream,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), String> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(connection)).await.map_err(text)?;
    // It ends with the sender.
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(text)?;
    let status = response.status();
    Ok((status, response.into_body().collect().await.map_err(text)?.to_bytes()))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
