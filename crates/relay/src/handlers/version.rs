//! `GET /_matrix/federation/v1/version`: name and version.

use axum::response::Response;
use http::StatusCode;

use crate::errors::json;

pub(crate) async fn handle() -> Response {
    let version = env!("CARGO_PKG_VERSION");
    json(StatusCode::OK, format!(r#"{{"server":{{"name":"Restante","version":"{version}"}}}}"#))
}
