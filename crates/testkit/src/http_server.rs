//! A small HTTP server inside the test, for the parts that the test plays itself.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::header::ACCEPT_ENCODING;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::http_probe::exchange;

/// An answer that may take its time.
pub type Answer = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;

type Handler = Arc<dyn Fn(Request<Bytes>) -> Answer + Send + Sync>;

/// Answers at a loopback address until it is dropped.
#[derive(Debug)]
pub struct HttpServer {
    port: u16,
    task: JoinHandle<()>,
}

impl HttpServer {
    /// Answers every request with what `handler` makes of it.
    pub async fn start(handler: impl Fn(Request<Bytes>) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback is there");
        let port = listener.local_addr().expect("it is bound").port();
        Self { port, task: tokio::spawn(serve(listener, Arc::new(handler))) }
    }

    /// Its port on loopback.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An answer of JSON.
pub(crate) fn json(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Full::new(body)).expect("the header is valid")
}

/// Carries `request` to the server at `url`; 502 when it does not answer.
pub(crate) async fn pass_on(request: Request<Bytes>, url: &str) -> Response<Full<Bytes>> {
    let (mut head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    head.uri = format!("{url}{target}").parse::<Uri>().expect("a URL and a target make a URL");
    // The answer's headers stay behind, and nobody could read a compressed one without them.
    head.headers.remove(ACCEPT_ENCODING);
    match exchange(Request::from_parts(head, Full::new(body))).await {
        Some((status, body)) => json(status, body),
        None => json(StatusCode::BAD_GATEWAY, Bytes::from_static(b"{}")),
    }
}

async fn serve(listener: TcpListener, handler: Handler) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((caller, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        connections.spawn(serve_caller(caller, Arc::clone(&handler)));
    }
}

async fn serve_caller(caller: TcpStream, handler: Handler) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let handler = Arc::clone(&handler);
        async move {
            let (head, body) = request.into_parts();
            // A caller that hangs up within its body gets an answer that nobody reads.
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            Ok::<_, Infallible>(handler(Request::from_parts(head, body)).await)
        }
    });
    // A caller that hangs up is no concern of this server's.
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(caller), answer)
        .await;
}
