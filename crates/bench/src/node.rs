//! The node under measurement: the built program in a folder of its own, before a homeserver that answers at once.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use restante_federation_proto::{RequestTarget, ServerName};
use restante_relay_api::endpoints::SEND;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::{JoinHandle, JoinSet};

use crate::origin::Origin;
use crate::process::resident_mib;

/// The secret that the homeserver shows.
const SECRET: &str = "of a measurement, and nobody's";

/// What a node knows of others.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Knows<'a> {
    Nobody,
    /// Where its own mail is.
    Relay(&'a ServerName, SocketAddr),
    /// The way to a server.
    Route(&'a ServerName, SocketAddr),
}

/// A node that runs, and its homeserver; both end when it is dropped.
pub(crate) struct NodeProcess {
    child: Child,
    _folder: tempfile::TempDir,
    homeserver: JoinHandle<()>,
    outbound: SocketAddr,
}

impl NodeProcess {
    /// Starts `program` as the node of `owner`.
    pub(crate) async fn start(
        program: &Path,
        owner: &Origin,
        knows: Knows<'_>,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("cannot listen")?;
        let url = format!("http://{}", listener.local_addr()?);
        let homeserver = tokio::spawn(serve(listener));
        let folder = tempfile::tempdir_in(".").context("cannot make a folder here")?;
        let key = folder.path().join("signing.key");
        std::fs::write(&key, owner.key.to_file_text())?;
        let anywhere = json!({ "listen": "127.0.0.1:0" });
        let mut config = json!({
            "server_name": owner.name,
            "signing_key": key,
            "homeserver": url,
            "data": folder.path().join("data"),
            "outbound": { "listen": "127.0.0.1:0", "secret": SECRET },
            "inbound": anywhere,
            "admin": anywhere,
            "federation": { "dns": "off" },
        });
        match knows {
            Knows::Nobody => {}
            Knows::Relay(relay, address) => {
                let at = json!([{ "server_name": relay, "url": format!("http://{address}") }]);
                config["relays"] = json!({ owner.name.as_str(): at });
            }
            Knows::Route(server, address) => {
                config["federation"]["routes"] =
                    json!({ server.as_str(): format!("http://{address}") });
            }
        }
        let file = folder.path().join("node.toml");
        std::fs::write(&file, toml::to_string(&config)?)?;
        let mut command = Command::new(program);
        command.args(["node", "--log", "error", "--config"]).arg(&file);
        command.stdout(Stdio::piped()).kill_on_drop(true);
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let stdout = child.stdout.take().context("the program's output was piped")?;
        let outbound = outbound_door(BufReader::new(stdout)).await?;
        Ok(Self { child, _folder: folder, homeserver, outbound })
    }

    /// Where its homeserver's requests enter.
    pub(crate) fn outbound(&self) -> SocketAddr {
        self.outbound
    }

    /// Its resident memory, MiB.
    pub(crate) fn memory_mib(&self) -> anyhow::Result<f64> {
        resident_mib(&self.child)
    }

    /// A request that its homeserver has signed for `destination`, as Synapse hands it to the node.
    pub(crate) fn handed_over(
        owner: &Origin,
        target: &RequestTarget,
        destination: &ServerName,
        content: &[u8],
    ) -> Bytes {
        let authorization = owner.authorization(&Method::PUT, target, destination, content);
        let head = format!(
            "PUT matrix-federation://{destination}{} HTTP/1.1\r\nhost: {destination}\r\n\
             authorization: {authorization}\r\nproxy-authorization: Bearer {SECRET}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            target.as_str(),
            content.len()
        );
        [head.as_bytes(), content].concat().into()
    }
}

/// What it prints last at its start is read as well, and the rest of its output dropped.
async fn outbound_door(output: BufReader<ChildStdout>) -> anyhow::Result<SocketAddr> {
    let mut lines = output.lines();
    let mut outbound = None;
    loop {
        let Some(line) = lines.next_line().await? else { bail!("the node ended at its start") };
        if let Some(address) = line.strip_prefix("outbound on ") {
            outbound = Some(address.parse().context("the node says where it listens")?);
        } else if line.starts_with("admin on ") {
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return outbound.context("the node says where it listens");
        }
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

/// It takes every transaction, knows the version of every room, and is in none.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    // Read to its end, so that the connection can be used again.
    let _ = body.collect().await;
    let path = head.uri.path();
    let (status, answer) = if head.method == Method::PUT && path.starts_with(SEND) {
        (200, json!({ "pdus": {} }))
    } else if path.starts_with("/_matrix/federation/v1/make_join/") {
        // The node asks it for the version of a room by naming one that no room has.
        let text = "Your homeserver does not support this room's version.";
        let errcode = "M_INCOMPATIBLE_ROOM_VERSION";
        (400, json!({ "errcode": errcode, "error": text, "room_version": "11" }))
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
