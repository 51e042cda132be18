//! How one process reaches others: the `Exchange` of everything that is simulated.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderValue, PROXY_AUTHORIZATION};
use http::{Request, Response, StatusCode, Uri};
use restante_federation::{
    Body, Exchange, ExchangeError, Patience, Peer, Stage, collect_limited, full,
};
use restante_federation_proto::ServerName;
use restante_relay_api::endpoints::{CAPSULE_MEMBER, COLLECT, SEND, SEND_RELAY};

use crate::network::{Network, OpenDoor, Sabotage};

/// The `worker_replication_secret` of every homeserver here.
pub(crate) const SECRET: &str = "secret";
const BEARER: &str = "Bearer secret";

/// Between two processes of one machine.
const NEXT_DOOR: Duration = Duration::from_millis(1);

/// The door for other servers.
pub(crate) fn front_door(server: &ServerName) -> String {
    server.to_string()
}

/// The door of a node for its homeserver.
pub(crate) fn hook_door(server: &ServerName) -> String {
    format!("{server} hook")
}

/// The door of a homeserver for its node.
pub(crate) fn back_door(server: &ServerName) -> String {
    format!("{server} homeserver")
}

/// Where a process's calls go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Straight to the other machine.
    Out,
    /// To the node on the same machine, which takes them further.
    ThroughNode,
    /// To the homeserver on the same machine, whoever is named.
    ToOwnHomeserver,
}

/// How one process reaches others, until it dies.
pub(crate) struct Wire {
    pub(crate) network: Arc<Network>,
    pub(crate) from: ServerName,
    pub(crate) way: Way,
    pub(crate) is_alive: Arc<AtomicBool>,
}

#[async_trait]
impl Exchange for Wire {
    async fn exchange(
        &self,
        peer: &Peer,
        request: Request<Body>,
        patience: Patience,
    ) -> Result<Response<Body>, ExchangeError> {
        let server = &peer.name;
        let (parts, body) = request.into_parts();
        let body = collect_limited(body, usize::MAX).await.map_err(|error| {
            ExchangeError::Broken { server: server.clone(), source: error.into() }
        })?;
        let mut request = Request::from_parts(parts, body);
        // What travels is looked at, and changed by relays that lie: nobody hears that it may be compressed.
        request.headers_mut().remove(ACCEPT_ENCODING);
        self.check_alive(server).await?;
        let kind = self.kind(&request);
        let answer = match self.way {
            Way::Out => self.call_out(server, request, patience).await,
            Way::ThroughNode => {
                let request = hook_request(server, request);
                self.call_next_door(server, &hook_door(&self.from), request, patience).await
            }
            Way::ToOwnHomeserver => {
                self.call_next_door(server, &back_door(&self.from), request, patience).await
            }
        };
        self.check_alive(server).await?;
        let mut answer = answer?;
        answer.headers_mut().remove(ACCEPT_ENCODING);
        if let Some(kind) = kind.filter(|_| answer.status() == StatusCode::OK) {
            self.network.count(kind);
        }
        Ok(answer.map(full))
    }
}

impl Wire {
    /// What a dead process's tasks still do has no effect on anybody.
    async fn check_alive(&self, server: &ServerName) -> Result<(), ExchangeError> {
        if self.is_alive.load(Ordering::SeqCst) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        Err(ExchangeError::Connect { server: server.clone(), source: "the caller is dead".into() })
    }

    async fn call_next_door(
        &self,
        server: &ServerName,
        door: &str,
        request: Request<Bytes>,
        patience: Patience,
    ) -> Result<Response<Bytes>, ExchangeError> {
        tokio::time::sleep(NEXT_DOOR).await;
        let refused =
            || ExchangeError::Connect { server: server.clone(), source: "refused".into() };
        let open = self.network.door(door).ok_or_else(refused)?;
        let late = |_| ExchangeError::Timeout { server: server.clone(), stage: Stage::Answer };
        let asked = summary(&request);
        let answering = self.answer(server, door, &open, request, true);
        let answer = tokio::time::timeout(patience.answer, answering).await.map_err(late)?;
        tokio::time::sleep(NEXT_DOOR).await;
        if self.way == Way::ThroughNode {
            self.tell(server, &asked, &answer);
        }
        answer
    }

    async fn call_out(
        &self,
        server: &ServerName,
        request: Request<Bytes>,
        patience: Patience,
    ) -> Result<Response<Bytes>, ExchangeError> {
        let asked = summary(&request);
        let weather = self.network.weather();
        let late = |stage| ExchangeError::Timeout { server: server.clone(), stage };
        let answer = async {
            let door = front_door(server);
            if self.network.is_cut(&self.from, server) || weather.way_there > patience.connect {
                tokio::time::sleep(patience.connect).await;
                return Err(late(Stage::Connect));
            }
            tokio::time::sleep(weather.way_there).await;
            let refused =
                || ExchangeError::Connect { server: server.clone(), source: "refused".into() };
            let open = self.network.door(&door).ok_or_else(refused)?;
            let answering = async {
                if self.is_sabotaged(&request) {
                    return Ok(Response::new(Bytes::from_static(b"{}")));
                }
                if weather.loses_request || self.network.is_cut(&self.from, server) {
                    std::future::pending::<()>().await;
                }
                let answer =
                    self.answer(server, &door, &open, request, weather.outlives_caller).await;
                if weather.loses_answer || self.network.is_cut(&self.from, server) {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(weather.way_back).await;
                answer
            };
            let answer = tokio::time::timeout(patience.answer, answering).await;
            answer.map_err(|_| late(Stage::Answer))?
        };
        let answer = answer.await;
        self.tell(server, &asked, &answer);
        answer
    }

    /// What an exchange is counted as if it succeeds.
    fn kind(&self, request: &Request<Bytes>) -> Option<&'static str> {
        let path = request.uri().path();
        let is_transaction = path.starts_with(SEND);
        Some(match self.way {
            Way::Out if path.starts_with(SEND_RELAY) => match is_with_capsule(request.body()) {
                true => "deposits with a capsule",
                false => "deposits without a capsule",
            },
            Way::Out if is_transaction => "direct transactions",
            Way::Out if path == COLLECT => "collects",
            Way::ThroughNode if path.contains("/get_missing_events/") => "questions for a gap",
            Way::ToOwnHomeserver if is_transaction => {
                let header = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
                match header.contains(&format!("origin=\"{}\"", self.from)) {
                    true => "re-wrapped transactions",
                    false => "replayed or passed transactions",
                }
            }
            _ => return None,
        })
    }

    fn is_sabotaged(&self, request: &Request<Bytes>) -> bool {
        self.network.sabotage == Some(Sabotage::DepositsGoNowhere)
            && request.uri().path().starts_with(SEND_RELAY)
    }

    /// Has the other side answer; `outlives_caller` says that it goes on when the caller hangs up.
    async fn answer(
        &self,
        server: &ServerName,
        name: &str,
        door: &OpenDoor,
        request: Request<Bytes>,
        outlives_caller: bool,
    ) -> Result<Response<Bytes>, ExchangeError> {
        let broken = || ExchangeError::Broken { server: server.clone(), source: "reset".into() };
        let answering = (door.handler)(request);
        let answer = if outlives_caller {
            tokio::spawn(answering).await.map_err(|_| broken())?
        } else {
            answering.await
        };
        if self.network.is_still_open(name, door) { Ok(answer) } else { Err(broken()) }
    }

    fn tell(
        &self,
        server: &ServerName,
        asked: &str,
        answer: &Result<Response<Bytes>, ExchangeError>,
    ) {
        let from = &self.from;
        let via = if self.way == Way::ThroughNode { " (by its node)" } else { "" };
        match answer {
            Ok(answer) if answer.status() == StatusCode::OK => {
                let bytes = answer.body().len();
                self.network
                    .story
                    .tell(format_args!("{from} → {server}{via} {asked}: 200, {bytes} bytes"));
            }
            Ok(answer) => {
                let (status, text) = (answer.status().as_u16(), text(answer.body()));
                self.network
                    .story
                    .tell(format_args!("{from} → {server}{via} {asked}: {status} {text}"));
            }
            Err(error) => {
                self.network.story.tell(format_args!("{from} → {server}{via} {asked}: {error}"))
            }
        }
    }
}

fn is_with_capsule(body: &Bytes) -> bool {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    body.get(CAPSULE_MEMBER).is_some()
}

fn text(body: &Bytes) -> String {
    String::from_utf8_lossy(body).chars().take(160).collect()
}

fn summary(request: &Request<Bytes>) -> String {
    let path = request.uri().path();
    let path = path.strip_prefix("/_matrix/").unwrap_or(path);
    format!("{} {path} ({} bytes)", request.method(), request.body().len())
}

/// As Synapse writes it for its federation worker.
fn hook_request(server: &ServerName, mut request: Request<Bytes>) -> Request<Bytes> {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let uri: Result<Uri, _> = format!("matrix-federation://{server}{target}").parse();
    if let Ok(uri) = uri {
        *request.uri_mut() = uri;
    }
    request.headers_mut().insert(PROXY_AUTHORIZATION, HeaderValue::from_static(BEARER));
    request
}
