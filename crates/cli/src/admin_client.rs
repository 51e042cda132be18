//! Talks to the operators' door of a running relay or node.

mod stream;
mod way;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use restante_federation::BaseUrl;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::args::{NodeConfigOption, RelayConfigOptions};
use crate::config_file;
pub(crate) use stream::Lines;
use way::Way;

/// A program on this machine answers a question within this time or is stuck.
const DEADLINE: Duration = Duration::from_secs(10);

/// A status with thousands of waiting envelopes is a few megabytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What every call's path begins with.
const BASE: &str = "/_restante/admin/v1";

/// The file with the token, in the data folder of either program.
pub(crate) const TOKEN_FILE: &str = "admin-token";

/// The operators' door of one program.
#[derive(Debug)]
pub(crate) struct AdminClient {
    way: Way,
    token: String,
    program: &'static str,
    deadline: Duration,
}

/// A connection that is open for as long as its answer is read.
#[derive(Debug)]
struct Answer {
    status: http::StatusCode,
    body: Incoming,
    connection: JoinHandle<()>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl AdminClient {
    /// Finds a node's door by its configuration file.
    pub(crate) fn of_node(options: &NodeConfigOption) -> anyhow::Result<Self> {
        let config = config_file::node(&options.file)?;
        Self::open("node", options.door.as_ref(), &config.data)
    }

    /// Finds a relay's door by its configuration; without a file everything has a default.
    pub(crate) fn of_relay(options: &RelayConfigOptions) -> anyhow::Result<Self> {
        let config = options.read()?;
        Self::open("relay", options.door.as_ref(), &config.data)
    }

    /// The door at the socket in the folder `data`, or at `url`; its token is in that folder.
    pub(crate) fn open(
        program: &'static str,
        url: Option<&BaseUrl>,
        data: &Path,
    ) -> anyhow::Result<Self> {
        let way = Way::of(url, data)?;
        let path = data.join(TOKEN_FILE);
        let token = fs::read_to_string(&path).with_context(|| {
            format!(
                "cannot read the token {}; has the {program} been started, and may this user read it?",
                path.display()
            )
        })?;
        Ok(Self { way, token: token.trim().to_owned(), program, deadline: DEADLINE })
    }

    /// The same door, for a call that may take this long.
    pub(crate) fn patient(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// `GET`, answered with JSON.
    pub(crate) async fn get(&self, target: &str) -> anyhow::Result<Value> {
        self.call(Method::GET, target, Vec::new()).await
    }

    /// `POST` of a JSON body, answered with JSON.
    pub(crate) async fn post(&self, target: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(Method::POST, target, body.to_string().into_bytes()).await
    }

    /// Any method; a refusal becomes an error with the program's own words.
    pub(crate) async fn call(
        &self,
        method: Method,
        target: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<Value> {
        let whole = async {
            let answer = self.send(method, &format!("{BASE}{target}"), body).await?;
            self.json(answer).await
        };
        tokio::time::timeout(self.deadline, whole).await.with_context(|| self.late())?
    }

    /// `GET` of a path outside the admin API, such as `/ready`: its status and text.
    pub(crate) async fn plain(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let whole = async {
            let mut answer = self.send(Method::GET, path, Vec::new()).await?;
            let body = Limited::new(&mut answer.body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
            Ok((answer.status.as_u16(), String::from_utf8_lossy(&body).into_owned()))
        };
        tokio::time::timeout(self.deadline, whole).await.with_context(|| self.late())?
    }

    /// `GET`, answered with lines that are read one by one; none of them is held for longer than its reader wants.
    pub(crate) async fn lines(&self, target: &str) -> anyhow::Result<Lines> {
        let path = format!("{BASE}{target}");
        let sent = self.send(Method::GET, &path, Vec::new());
        let answer = tokio::time::timeout(self.deadline, sent).await;
        let answer = answer.with_context(|| self.late())??;
        if answer.status.is_success() {
            return Ok(Lines::of(answer, self.deadline));
        }
        self.json(answer).await?;
        bail!("the {} refused without a reason", self.program)
    }

    fn late(&self) -> String {
        format!("the {} at {} did not answer in time", self.program, self.way)
    }

    async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> anyhow::Result<Answer> {
        let program = self.program;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.way.host_header())
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .body(Full::new(Bytes::from(body)))?;
        let stream = self.way.connect(program).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(async move {
            // The exchange reports what matters of a broken connection.
            let _ = connection.await;
        });
        let sent = sender.send_request(request).await;
        if sent.is_err() {
            connection.abort();
        }
        let response = sent.with_context(|| format!("the {program} closed the connection"))?;
        let (head, body) = response.into_parts();
        Ok(Answer { status: head.status, body, connection })
    }

    async fn json(&self, mut answer: Answer) -> anyhow::Result<Value> {
        let body = Limited::new(&mut answer.body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
        let json: Value = serde_json::from_slice(&body)
            .with_context(|| format!("the {}'s answer is not JSON", self.program))?;
        if !answer.status.is_success() {
            let refused = format!("the {} refused", self.program);
            bail!("{}", json["error"].as_str().unwrap_or(&refused));
        }
        Ok(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted_door::ScriptedDoor;

    #[tokio::test]
    async fn a_question_carries_the_token_and_the_path_of_the_admin_api() {
        let door = ScriptedDoor::open().await;
        door.answer("GET", "/_restante/admin/v1/status", 200, r#"{"a":1}"#);
        assert_eq!(door.client().get("/status").await.unwrap()["a"], 1);
        assert_eq!(door.asked()[0].authorization, "Bearer token");
    }

    #[tokio::test]
    async fn a_refusal_has_the_programs_own_words() {
        let door = ScriptedDoor::open().await;
        door.answer("GET", "/_restante/admin/v1/status", 404, r#"{"error":"not there"}"#);
        let error = door.client().get("/status").await.unwrap_err();
        assert_eq!(error.to_string(), "not there");
        let error = door.client().lines("/status").await.unwrap_err();
        assert_eq!(error.to_string(), "not there");
    }

    #[tokio::test]
    async fn a_program_that_does_not_run_is_told_in_one_sentence_with_where_it_was_looked_for() {
        let door = ScriptedDoor::open().await;
        let (client, socket) = (door.client(), door.socket());
        let by_url = door.client_by_url();
        drop(door);
        for (client, place) in
            [(client, socket.display().to_string()), (by_url, "http://127.".into())]
        {
            let error = client.get("/status").await.unwrap_err();
            let expected = format!("no relay is running behind {place}");
            assert!(error.to_string().starts_with(&expected), "{error}");
        }
    }

    #[tokio::test]
    async fn the_token_goes_to_the_socket_alone_unless_an_address_is_asked_for() {
        let door = ScriptedDoor::open().await;
        door.answer("GET", "/_restante/admin/v1/status", 200, r#"{"a":1}"#);
        let (by_socket, by_url) = (door.client(), door.client_by_url());
        assert_eq!(by_url.get("/status").await.unwrap()["a"], 1);
        std::fs::remove_file(door.socket()).unwrap();
        by_socket.get("/status").await.unwrap_err();
        assert_eq!(door.asked().len(), 1, "who listens at the address has got no token");
    }

    #[test]
    fn a_door_is_asked_in_plain_http_as_it_speaks() {
        let https = "https://relay.example".parse().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let error = AdminClient::open("relay", Some(&https), folder.path()).unwrap_err();
        assert!(error.to_string().contains("speaks plain HTTP"), "{error}");
    }
}
