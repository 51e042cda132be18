//! A homeserver that knows nothing of relays: it is called, and answers as it is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};
use restante_relay_api::endpoints::VERSION;
use serde_json::Value;
use tokio::sync::Notify;

use crate::harness::TestServer;

/// What it answers.
#[derive(Debug, Clone)]
pub(super) enum Say {
    /// 200.
    Taken,
    /// Nothing that a Matrix server says: what stands before it, while it is away.
    Away,
    /// This.
    Status(u16, &'static str),
    /// That it is elsewhere.
    Redirect(String),
    /// Bytes without end.
    Flood,
}

/// A call that came.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// See the module.
pub(super) struct Destination {
    pub(super) server: TestServer,
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: tokio::task::JoinHandle<()>,
}

struct Shared {
    script: Mutex<Script>,
    came: Notify,
}

struct Script {
    say: Say,
    say_to: BTreeMap<String, Say>,
    calls: Vec<Call>,
    /// Questions whether it is there.
    probes: usize,
    under_way: usize,
    at_once_max: usize,
}

impl Destination {
    pub(super) async fn start(seed: u8) -> Self {
        let script = Script {
            say: Say::Taken,
            say_to: BTreeMap::new(),
            calls: Vec::new(),
            probes: 0,
            under_way: 0,
            at_once_max: 0,
        };
        let shared = Arc::new(Shared { script: Mutex::new(script), came: Notify::new() });
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = axum::Router::new().fallback(answer).with_state(shared.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { server: TestServer::new(seed), address, shared, serving }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From here on it answers so.
    pub(super) fn say(&self, say: Say) {
        self.shared.script.lock().unwrap().say = say;
    }

    /// To the transaction with this text it answers so.
    pub(super) fn say_to(&self, text: &str, say: Say) {
        self.shared.script.lock().unwrap().say_to.insert(text.to_owned(), say);
    }

    /// The first call, once it has come.
    pub(super) async fn next_call(&self) -> Call {
        let came = async {
            loop {
                let came = self.shared.came.notified();
                if let Some(call) = self.calls().into_iter().next() {
                    return call;
                }
                came.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), came).await.expect("nobody calls")
    }

    /// Waits until it was called, be it to find out whether it is there.
    pub(super) async fn next_attempt(&self) {
        let came = async {
            loop {
                let came = self.shared.came.notified();
                let probes = self.shared.script.lock().unwrap().probes;
                if probes > 0 || !self.calls().is_empty() {
                    return;
                }
                came.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), came).await.expect("nobody calls");
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.shared.script.lock().unwrap().calls.clone()
    }

    pub(super) fn forget_calls(&self) {
        let mut script = self.shared.script.lock().unwrap();
        script.calls.clear();
        script.probes = 0;
    }

    /// The texts of the transactions that came.
    pub(super) fn texts(&self) -> Vec<String> {
        self.calls().iter().map(|call| text(&call.body)).collect()
    }

    pub(super) fn calls_at_once_max(&self) -> usize {
        self.shared.script.lock().unwrap().at_once_max
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn text(body: &[u8]) -> String {
    let transaction: Value = serde_json::from_slice(body).unwrap_or_default();
    transaction["pdus"][0]["content"]["body"].as_str().unwrap_or_default().to_owned()
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 24).await.unwrap();
    if head.uri.path() == VERSION {
        let mut script = shared.script.lock().unwrap();
        script.probes += 1;
        shared.came.notify_one();
        return respond(match &script.say {
            say @ (Say::Away | Say::Status(500.., _)) => say.clone(),
            _ => Say::Status(200, r#"{"server":{"name":"test"}}"#),
        });
    }
    let say = {
        let mut script = shared.script.lock().unwrap();
        let say = script.say_to.get(&text(&body)).unwrap_or(&script.say).clone();
        let (method, uri, headers) = (head.method, head.uri, head.headers);
        script.calls.push(Call { method, uri, headers, body });
        script.under_way += 1;
        script.at_once_max = script.at_once_max.max(script.under_way);
        say
    };
    shared.came.notify_one();
    // Whoever calls twice at once is seen.
    tokio::time::sleep(Duration::from_millis(2)).await;
    shared.script.lock().unwrap().under_way -= 1;
    respond(say)
}

fn respond(say: Say) -> Response {
    let with = |status: u16, body: Body| {
        let status = StatusCode::from_u16(status).unwrap();
        Response::builder().status(status).body(body).unwrap()
    };
    match say {
        Say::Taken => with(200, r#"{"pdus":{}}"#.into()),
        Say::Away => with(503, "<html>".into()),
        Say::Status(status, body) => with(status, body.into()),
        Say::Redirect(to) => {
            let mut response = with(307, Body::empty());
            response.headers_mut().insert("location", to.parse().unwrap());
            response
        }
        Say::Flood => {
            let endless = futures_util::stream::repeat_with(|| {
                Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 65536]))
            });
            with(200, Body::from_stream(endless))
        }
    }
}
