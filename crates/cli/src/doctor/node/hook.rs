//! A call through the worker hook, as the homeserver makes it.

use std::time::Duration;

use http::header::{AUTHORIZATION, HOST, PROXY_AUTHORIZATION};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use restante_federation::Identity;
use restante_federation_proto::{RequestTarget, SignableRequest};
use restante_node::NodeConfig;
use restante_relay_api::endpoints::VERSION;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::doctor::report::Outcome;

/// The node answers by itself, without asking anybody.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer is one sentence.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Whether the node takes what the homeserver sends through it.
///
/// The question is one to the homeserver's own name, which a node answers with "not found": it leaves the machine by no
/// way, and shows that secret and signature are those that the node wants.
pub(super) async fn outcome(config: &NodeConfig, identity: &Identity) -> Outcome {
    let asked = tokio::time::timeout(PATIENCE, ask(config, identity)).await;
    match asked.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
        Ok((StatusCode::NOT_FOUND, _)) => Outcome::ok(format!(
            "the node takes the homeserver's calls at {}",
            config.outbound.listen
        )),
        Ok((status, said)) => Outcome::failed(
            format!("{}: {said}", status.as_u16()),
            "use the same text in outbound.secret and worker_replication_secret, restart the node after a change, and see that nothing else listens there",
        ),
        Err(error) => Outcome::failed(error, "start the node, with this configuration"),
    }
}

async fn ask(config: &NodeConfig, identity: &Identity) -> Result<(StatusCode, String), String> {
    let request = request(config, identity)?;
    let stream = TcpStream::connect(config.outbound.listen).await;
    let stream = stream.map_err(|error| format!("{}: {error}", config.outbound.listen))?;
    let connection = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = connection.map_err(|error| error.to_string())?;
    let exchange = async move {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        let json: Value = serde_json::from_slice(&body).unwrap_or_default();
        Ok((status, json["error"].as_str().unwrap_or("not a node's answer").to_owned()))
    };
    // The exchange reports what matters of a broken connection.
    tokio::join!(exchange, async { drop(connection.await) }).0
}

fn request(config: &NodeConfig, identity: &Identity) -> Result<Request<Empty<Bytes>>, String> {
    let own = &identity.server_name;
    let target: RequestTarget = VERSION.parse().map_err(|error| format!("{error}"))?;
    let signable = SignableRequest {
        method: "GET",
        target: &target,
        origin: own,
        destination: Some(own),
        content: None,
    };
    Request::get(format!("matrix-federation://{own}{VERSION}"))
        .header(HOST, own.as_str())
        .header(PROXY_AUTHORIZATION, format!("Bearer {}", config.outbound.secret))
        .header(AUTHORIZATION, signable.sign(&identity.key).to_string())
        .body(Empty::new())
        .map_err(|error| error.to_string())
}
