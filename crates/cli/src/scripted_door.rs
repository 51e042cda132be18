//! For tests: an operators' door that answers as it was told, and remembers what it was asked.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use http::header::AUTHORIZATION;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use restante_federation::BaseUrl;
use restante_operators::SOCKET_FILE;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::{JoinHandle, JoinSet};

use crate::admin_client::{AdminClient, TOKEN_FILE};

/// One request, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) authorization: String,
    pub(crate) body: String,
}

#[derive(Debug, Default)]
struct Script {
    answers: HashMap<(String, String), (u16, String)>,
    asked: Vec<Asked>,
}

/// Answers at a socket and on a loopback address until it is dropped.
#[derive(Debug)]
pub(crate) struct ScriptedDoor {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    folder: TempDir,
    task: JoinHandle<()>,
}

impl ScriptedDoor {
    /// A door that answers 404 to everything until it is told more.
    pub(crate) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::<Mutex<Script>>::default();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(TOKEN_FILE), "token\n").unwrap();
        let socket = UnixListener::bind(folder.path().join(SOCKET_FILE)).unwrap();
        let task = tokio::spawn(serve(listener, socket, script.clone()));
        Self { address, script, folder, task }
    }

    /// From now on answers `method` of `target` so.
    pub(crate) fn answer(&self, method: &str, target: &str, status: u16, body: &str) {
        let key = (method.to_owned(), target.to_owned());
        self.script().answers.insert(key, (status, body.to_owned()));
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.script().asked.clone()
    }

    /// A client of this door, as if a relay stood behind it.
    pub(crate) fn client(&self) -> AdminClient {
        AdminClient::open("relay", None, self.folder.path()).unwrap()
    }

    /// The same at its address.
    pub(crate) fn client_by_url(&self) -> AdminClient {
        AdminClient::open("relay", Some(&self.url()), self.folder.path()).unwrap()
    }

    /// Where its socket is.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join(SOCKET_FILE)
    }

    /// Where it is, for callers of its public side.
    pub(crate) fn url(&self) -> BaseUrl {
        let (host, port) = (self.address.ip().to_string(), self.address.port());
        BaseUrl { tls: false, host, port }
    }

    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ScriptedDoor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, socket: UnixListener, script: Arc<Mutex<Script>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                connections.spawn(serve_caller(accepted.unwrap().0, script.clone()));
            }
            accepted = socket.accept() => {
                connections.spawn(serve_caller(accepted.unwrap().0, script.clone()));
            }
        }
    }
}

async fn serve_caller(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    script: Arc<Mutex<Script>>,
) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let script = script.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let authorization = head.headers.get(AUTHORIZATION);
            let asked = Asked {
                method: head.method.to_string(),
                target: head.uri.to_string(),
                authorization: authorization
                    .map_or_else(String::new, |value| value.to_str().unwrap().to_owned()),
                body: String::from_utf8_lossy(&body).into_owned(),
            };
            let mut script = script.lock().unwrap();
            let key = (asked.method.clone(), asked.target.clone());
            let missing = (404, format!(r#"{{"error":"no script for {} {}"}}"#, key.0, key.1));
            let (status, body) = script.answers.get(&key).cloned().unwrap_or(missing);
            script.asked.push(asked);
            let response = Response::builder().status(status).body(Full::new(Bytes::from(body)));
            Ok::<_, Infallible>(response.unwrap())
        }
    });
    // A caller that hangs up is no concern of this door's.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}
