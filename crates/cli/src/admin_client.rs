//! Talks to a running node's admin API.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::header::{AUTHORIZATION, HOST};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::config_file;

/// A node on this machine answers within this time or is stuck.
const DEADLINE: Duration = Duration::from_secs(10);

/// A status with thousands of waiting envelopes is a few megabytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What the paths of the admin API begin with.
const BASE: &str = "/_restante/admin/v1";

/// The admin API of one node.
pub(crate) struct AdminClient {
    address: SocketAddr,
    token: String,
}

impl AdminClient {
    /// Finds address and token by the node's configuration file.
    pub(crate) fn from_config(file: &Path) -> anyhow::Result<Self> {
        let config = config_file::node(file)?;
        let path = config.data.join("admin-token");
        let token = fs::read_to_string(&path).with_context(|| {
            format!(
                "cannot read the token {}; has the node been started, and may this user read it?",
                path.display()
            )
        })?;
        Ok(Self { address: config.admin.listen, token: token.trim().to_owned() })
    }

    /// `GET` of a path below the base, answered with JSON.
    pub(crate) async fn get(&self, target: &str) -> anyhow::Result<Value> {
        self.call(Method::GET, target, Vec::new()).await
    }

    /// Any method; a refusal becomes an error with the node's own words.
    pub(crate) async fn call(
        &self,
        method: Method,
        target: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<Value> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{BASE}{target}"))
            .header(HOST, self.address.to_string())
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .body(Full::new(Bytes::from(body)))?;
        let answer = tokio::time::timeout(DEADLINE, self.exchange(request)).await;
        answer.with_context(|| format!("the node at {} did not answer in time", self.address))?
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Value> {
        let stream = TcpStream::connect(self.address)
            .await
            .with_context(|| format!("no node answers at {}; is it running?", self.address))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Takes the sender with it: the connection stays open for as long as there is one.
        let exchange = async move {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
            anyhow::Ok((status, body))
        };
        let (result, _closed) = tokio::join!(exchange, async {
            // The exchange reports what matters of a broken connection.
            let _ = connection.await;
        });
        let (status, body) = result?;
        let json: Value = serde_json::from_slice(&body).context("the node's answer is not JSON")?;
        if !status.is_success() {
            bail!("{}", json["error"].as_str().unwrap_or("the node refused"));
        }
        Ok(json)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request with `answer`, and keeps the connection open until the other side closes it.
    async fn serve(listener: TcpListener, answer: &'static str) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }

    async fn ask(answer: &'static str) -> anyhow::Result<Value> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = AdminClient { address, token: "token".to_owned() };
        tokio::join!(client.get("/status"), serve(listener, answer)).0
    }

    #[tokio::test]
    async fn a_command_ends_with_the_answer_though_the_node_would_keep_the_connection() {
        let answer = ask("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{\"a\":1}").await;
        assert_eq!(answer.unwrap()["a"], 1);
    }

    #[tokio::test]
    async fn a_refusal_has_the_nodes_own_words() {
        let answer =
            "HTTP/1.1 404 Not Found\r\ncontent-length: 21\r\n\r\n{\"error\":\"not there\"}";
        assert_eq!(ask(answer).await.unwrap_err().to_string(), "not there");
    }
}
