//! Hostile clients: each bad input by name, what it gets, and that an honest client goes on being served meanwhile.
//!
//! All of it is bounded in count and time. Replays are in `registration.rs`, large bodies in `pressure.rs`, malformed
//! deposits in `bad_input.rs`.

mod connections;
mod floods;
mod http2;
mod registrations;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::{TestRelay, TestServer, acknowledge_all, collect_all, texts};

/// Longer than anything an honest client waits for here; the machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// Somebody who leaves mail, collects it, and acknowledges it.
async fn honest_clients_are_served(relay: &TestRelay) {
    static ROUND: AtomicU32 = AtomicU32::new(0);
    let text = format!("honest {}", ROUND.fetch_add(1, Ordering::Relaxed));
    let (a, b) = (TestServer::new(201), TestServer::new(202));
    let round = async {
        a.leave(relay, &b, &text, &a.transaction(relay, &text)).await.assert_ok();
        let mut request = collect_all(relay);
        let collected = b.collect(relay, &request).await;
        assert_eq!(texts(&collected), [text.as_str()]);
        request.acknowledge = acknowledge_all(&collected);
        assert_eq!(b.collect(relay, &request).await.queued.count, 0);
    };
    timeout(PATIENCE, round).await.expect("an honest client was not served");
}

async fn connect(relay: &TestRelay) -> TcpStream {
    let port = relay.peer.url.as_ref().unwrap().port;
    TcpStream::connect(("127.0.0.1", port)).await.unwrap()
}

/// Sends `bytes` and reads what is answered before the relay closes the connection.
async fn converse(relay: &TestRelay, bytes: &[u8]) -> Vec<u8> {
    let (mut read, mut write) = connect(relay).await.into_split();
    let mut answer = Vec::new();
    // The relay may have closed before everything is written.
    let send = async {
        let _ = write.write_all(bytes).await;
        let _ = write.shutdown().await;
    };
    let receive = async {
        let _ = read.read_to_end(&mut answer).await;
    };
    timeout(PATIENCE, async { tokio::join!(send, receive) }).await.expect("neither answer nor end");
    answer
}
