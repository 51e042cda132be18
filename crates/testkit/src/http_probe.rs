//! Small HTTP requests to the processes under test.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// Sends `request` over a connection of its own; `None` when no answer came.
pub(crate) async fn exchange(request: Request<Full<Bytes>>) -> Option<(StatusCode, Bytes)> {
    // Without a pool: a kept connection would outlive the restart that a test is about.
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    let response = client.request(request).await.ok()?;
    let status = response.status();
    let body = response.into_body().collect().await.ok()?;
    Some((status, body.to_bytes()))
}

/// Asks for `url`; `None` when no answer came.
pub(crate) async fn get(url: &str) -> Option<(StatusCode, Bytes)> {
    let request = Request::get(url).body(Full::default()).expect("the harness builds whole URLs");
    exchange(request).await
}
