//! Small HTTP requests to the processes under test.

use std::path::Path;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

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

/// Where the admin API of every program begins.
pub(crate) const ADMIN: &str = "/_restante/admin/v1";

/// Asks the program whose data folder is `data` for something, as its operator.
///
/// # Panics
///
/// When it does not answer.
pub(crate) async fn command(
    method: Method,
    url: &str,
    data: &Path,
    body: &Value,
) -> (StatusCode, Value) {
    let token = std::fs::read_to_string(data.join("admin-token"));
    let token = token.expect("a program that runs has made its token");
    let request = Request::builder()
        .method(method)
        .uri(url)
        .header("authorization", format!("Bearer {}", token.trim()))
        .body(Full::from(body.to_string()))
        .expect("the harness builds whole URLs");
    let (status, body) = exchange(request).await.expect("a program that runs answers its operator");
    (status, serde_json::from_slice(&body).unwrap_or_default())
}
