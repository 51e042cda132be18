//! The node under measurement: the built program in a folder of its own, before a homeserver that answers at once.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use restante_federation_proto::ServerName;
use restante_relay_api::endpoints::SEND;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::{JoinHandle, JoinSet};

use crate::origin::Origin;

/// A node that runs, and its homeserver; both end when it is dropped.
pub(super) struct NodeProcess {
    _child: Child,
    _folder: tempfile::TempDir,
    homeserver: JoinHandle<()>,
}

impl NodeProcess {
    /// Starts `program` as the node of `owner`, whose mail is at that relay.
    pub(super) async fn start(
        program: &Path,
        owner: &Origin,
        (relay, address): (&ServerName, SocketAddr),
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("cannot listen")?;
        let url = format!("http://{}", listener.local_addr()?);
        let homeserver = tokio::spawn(serve(listener));
        let folder = tempfile::tempdir_in(".").context("cannot make a folder here")?;
        let key = folder.path().join("signing.key");
        std::fs::write(&key, owner.key.to_file_text())?;
        let anywhere = json!({ "listen": "127.0.0.1:0" });
        let at = json!([{ "server_name": relay, "url": format!("http://{address}") }]);
        let config = json!({
            "server_name": owner.name,
            "signing_key": key,
            "homeserver": url,
            "data": folder.path().join("data"),
            "outbound": { "listen": "127.0.0.1:0", "secret": "of a measurement, and nobody's" },
            "inbound": anywhere,
            "admin": anywhere,
            "relays": { owner.name.as_str(): at },
            "federation": { "dns": "off" },
        });
        let file = folder.path().join("node.toml");
        std::fs::write(&file, toml::to_string(&config)?)?;
        let mut command = Command::new(program);
        command.args(["node", "--log", "error", "--config"]).arg(&file);
        command.stdout(Stdio::null()).kill_on_drop(true);
        let child =
            command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { _child: child, _folder: folder, homeserver })
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        self.homeserver.abort();
    }
}

async fn serve(listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((tcp, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        let serving = http1::Builder::new().serve_connection(TokioIo::new(tcp), service_fn(answer));
        connections.spawn(async move {
            // A connection that breaks is the node's to tell of.
            let _ = serving.await;
        });
    }
}

/// It takes every transaction, and is in no room.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    // Read to its end, so that the connection can be used again.
    let _ = body.collect().await;
    let path = head.uri.path();
    let (status, answer) = if head.method == Method::PUT && path.starts_with(SEND) {
        (200, json!({ "pdus": {} }))
    } else if path.starts_with("/_matrix/federation/v1/state_ids/") {
        (403, json!({ "errcode": "M_FORBIDDEN", "error": "Host not in room." }))
    } else {
        (404, json!({ "errcode": "M_NOT_FOUND", "error": "Not found." }))
    };
    let answer = Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Full::new(answer.to_string().into()));
    Ok(answer.expect("a status and a header that are constants are well-formed"))
}
