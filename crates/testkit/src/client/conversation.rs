//! Requests and answers over the pipes of a client's process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tokio::task::JoinHandle;

use crate::process::{Process, Program};

/// What a homeserver answered when it refused a client's call.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("{} {}: {message}", http_status.unwrap_or_default(), errcode.as_deref().unwrap_or("no errcode"))]
pub struct ClientError {
    /// The Matrix error code.
    pub errcode: Option<String>,
    /// What the user is told.
    pub message: String,
    /// The status of the answer.
    pub http_status: Option<u16>,
}

#[derive(Deserialize)]
struct Answer {
    id: u64,
    #[serde(default)]
    ok: Value,
    error: Option<ClientError>,
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Result<Value, ClientError>>>>>;

/// The process, and the calls that wait for its answer.
#[derive(Debug)]
pub(super) struct Conversation {
    _process: Process,
    requests: AsyncMutex<ChildStdin>,
    next_id: AtomicU64,
    waiting: Waiting,
    listener: JoinHandle<()>,
}

impl Conversation {
    pub(super) fn start(program: Program) -> Self {
        let (process, stdin, stdout) = Process::start_piped(program);
        let waiting = Waiting::default();
        let listener = tokio::spawn(listen(stdout, Arc::clone(&waiting)));
        let requests = AsyncMutex::new(stdin);
        Self { _process: process, requests, next_id: AtomicU64::new(1), waiting, listener }
    }

    /// Calls a method of the client and waits for the answer.
    ///
    /// # Panics
    ///
    /// When the client's process has ended.
    pub(super) async fn call(&self, call: &str, arguments: Value) -> Result<Value, ClientError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        let line = format!("{}\n", json!({ "id": id, "call": call, "args": arguments }));
        let sent = self.requests.lock().await.write_all(line.as_bytes()).await;
        sent.expect("the client's process runs");
        answer.await.expect("the client's process runs until it has answered")
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn listen(stdout: ChildStdout, waiting: Waiting) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let answer: Answer = serde_json::from_str(&line).expect("client.py writes answers alone");
        let caller = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&answer.id);
        if let Some(caller) = caller {
            // A caller that no longer waits has given the test up.
            let _ = caller.send(answer.error.map_or(Ok(answer.ok), Err));
        }
    }
    // The process has ended: those who still wait must not wait for ever.
    waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
}
