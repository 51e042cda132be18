//! A link between two servers: a loopback address that leads to another, and can be cut.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::ports::Port;

/// Bytes that are carried at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Carries TCP from its own address to a target, and remembers the HTTP/1.1 request lines it saw.
///
/// While it is cut nobody listens at its address: callers are refused, as by a machine whose
/// services are down.
#[derive(Debug)]
pub struct Link {
    port: Port,
    target: String,
    seen: Arc<Mutex<HashMap<String, usize>>>,
    bytes: Arc<AtomicU64>,
    carrier: Option<JoinHandle<()>>,
}

impl Link {
    /// A link to `target` (`host:port`), cut until [`Link::restore`].
    pub fn to(target: String) -> Self {
        Self {
            port: Port::reserve(),
            target,
            seen: Arc::default(),
            bytes: Arc::default(),
            carrier: None,
        }
    }

    /// The URL at which it is entered.
    pub fn url(&self) -> String {
        self.port.url()
    }

    /// Opens the link.
    pub async fn restore(&mut self) {
        if self.carrier.is_some() {
            return;
        }
        let listener = TcpListener::bind(self.port.address()).await.expect("the port is reserved");
        let seen = Seen { lines: Arc::clone(&self.seen), bytes: Arc::clone(&self.bytes) };
        let carrier = carry_all(listener, self.target.clone(), seen);
        self.carrier = Some(tokio::spawn(carrier));
    }

    /// Cuts the link, and every connection that runs over it.
    pub async fn cut(&mut self) {
        if let Some(carrier) = self.carrier.take() {
            carrier.abort();
            // Ends when the listener and the connections, which the task owns, are dropped.
            let _ = carrier.await;
        }
    }

    /// Bytes that went over it, both ways together, without what TCP adds.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many requests with this method and beginning of the target went over it.
    pub fn requests(&self, method: &str, target_prefix: &str) -> usize {
        let wanted = format!("{method} {target_prefix}");
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|(line, _)| line.starts_with(&wanted)).map(|(_, count)| count).sum()
    }
}

/// What a link remembers.
#[derive(Debug, Clone)]
struct Seen {
    lines: Arc<Mutex<HashMap<String, usize>>>,
    bytes: Arc<AtomicU64>,
}

impl Seen {
    fn count(&self, chunk: &[u8]) {
        self.bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(carrier) = &self.carrier {
            carrier.abort();
        }
    }
}

async fn carry_all(listener: TcpListener, target: String, seen: Seen) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((caller, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        connections.spawn(carry(caller, target.clone(), seen.clone()));
    }
}

async fn carry(caller: TcpStream, target: String, seen: Seen) {
    let Ok(callee) = TcpStream::connect(target).await else { return };
    let (from_caller, to_caller) = caller.into_split();
    let (from_callee, to_callee) = callee.into_split();
    let mut lines = RequestLines::new(Arc::clone(&seen.lines));
    let read = |chunk: &[u8]| {
        seen.count(chunk);
        lines.read(chunk);
    };
    tokio::join!(
        copy(from_caller, to_callee, read),
        copy(from_callee, to_caller, |chunk| seen.count(chunk)),
    );
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut look: impl FnMut(&[u8])) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        look(&chunk[..length]);
        if to.write_all(&chunk[..length]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

/// Finds request lines in what a caller sends: every line that ends in `HTTP/1.1`.
struct RequestLines {
    line: Vec<u8>,
    seen: Arc<Mutex<HashMap<String, usize>>>,
}

impl RequestLines {
    fn new(seen: Arc<Mutex<HashMap<String, usize>>>) -> Self {
        Self { line: Vec::new(), seen }
    }

    fn read(&mut self, chunk: &[u8]) {
        for &byte in chunk {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            if let Some(target) = self.line.strip_suffix(b" HTTP/1.1\r") {
                // A body without a final newline stands in front of the next request's method.
                let text = String::from_utf8_lossy(target);
                let start = ["PUT /", "GET /", "POST /", "DELETE /"]
                    .iter()
                    .filter_map(|method| text.rfind(method))
                    .max();
                if let Some(start) = start {
                    let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                    *seen.entry(text[start..].to_owned()).or_default() += 1;
                }
            }
            self.line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_behind_a_body_without_a_newline_is_seen() {
        let seen = Arc::default();
        let mut lines = RequestLines::new(Arc::clone(&seen));
        lines.read(b"PUT /a HTTP/1.1\r\nhost: b\r\n\r\n{\"a\":\"GET /x");
        lines.read(b"\"}PUT /send/1?x=y HTTP/1.1\r\n\r\n{}GET /c HTTP/1.1\r\n");
        let mut found: Vec<_> = seen.lock().expect("not poisoned").keys().cloned().collect();
        found.sort();
        assert_eq!(found, ["GET /c", "PUT /a", "PUT /send/1?x=y"]);
    }

    #[tokio::test]
    async fn a_cut_link_refuses_and_a_restored_one_carries() {
        let target = TcpListener::bind("127.0.0.1:0").await.expect("loopback is there");
        let mut link = Link::to(target.local_addr().expect("it is bound").to_string());
        let address = link.port.address();
        assert!(TcpStream::connect(&address).await.is_err());

        link.restore().await;
        let mut caller = TcpStream::connect(&address).await.expect("the link is up");
        let (mut callee, _) = target.accept().await.expect("the link carries");
        caller.write_all(b"hello").await.expect("the link is up");
        let mut heard = [0; 5];
        callee.read_exact(&mut heard).await.expect("the link carries");
        assert_eq!(&heard, b"hello");

        link.cut().await;
        assert!(matches!(caller.read(&mut heard).await, Ok(0) | Err(_)));
        assert!(TcpStream::connect(&address).await.is_err());
    }
}
