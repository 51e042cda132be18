//! HTTP/2 spoken by hand: what no client library would send.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{PATIENCE, connect, honest_clients_are_served};
use crate::harness::TestRelay;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames (RFC 9113, section 6).
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;

/// Flags.
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// "The stream was not processed": it may be tried again.
const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A request whose body never comes: POST to the notary, over plain HTTP.
fn unfinished_request(stream: u32) -> Vec<u8> {
    const PATH: &[u8] = b"/_matrix/key/v2/query";
    let mut block = vec![0x83, 0x86, 0x41, 1, b'x', 0x44, u8::try_from(PATH.len()).unwrap()];
    block.extend_from_slice(PATH);
    frame(HEADERS, END_HEADERS, stream, &block)
}

async fn begin(relay: &TestRelay) -> TcpStream {
    let mut connection = connect(relay).await;
    connection.write_all(PREFACE).await.unwrap();
    connection.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    connection
}

struct Frame {
    kind: u8,
    flags: u8,
    payload: Vec<u8>,
}

/// The next frame; `None` once the connection is closed.
async fn next(connection: &mut TcpStream) -> Option<Frame> {
    let mut head = [0; 9];
    connection.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    connection.read_exact(&mut payload).await.ok()?;
    Some(Frame { kind: head[3], flags: head[4], payload })
}

#[tokio::test]
async fn more_streams_than_a_connection_may_have_are_refused() {
    let relay = TestRelay::start().await;
    let mut connection = begin(&relay).await;
    // The relay's limit holds once it is acknowledged.
    while let Some(Frame { kind, flags, .. }) =
        timeout(PATIENCE, next(&mut connection)).await.unwrap()
    {
        if kind == SETTINGS && flags & ACK == 0 {
            break;
        }
    }
    connection.write_all(&frame(SETTINGS, ACK, 0, &[])).await.unwrap();
    for number in 0..200 {
        connection.write_all(&unfinished_request(2 * number + 1)).await.unwrap();
    }
    connection.write_all(&frame(PING, 0, 0, &[7; 8])).await.unwrap();
    let mut refused = 0;
    while let Some(Frame { kind, flags, payload }) =
        timeout(PATIENCE, next(&mut connection)).await.unwrap()
    {
        match kind {
            RST_STREAM if payload == REFUSED_STREAM => refused += 1,
            PING if flags & ACK != 0 && payload == [7; 8] => break,
            GO_AWAY => break,
            _ => {}
        }
    }
    assert!(refused >= 100, "{refused} streams of 200 were refused");
    honest_clients_are_served(&relay).await;
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_without_end_end_the_connection() {
    let relay = TestRelay::start().await;
    let (mut read, mut write) = begin(&relay).await.into_split();
    let cancel = [0, 0, 0, 8];
    let flood = async {
        for number in 0..20_000 {
            let stream = 2 * number + 1;
            let both = [unfinished_request(stream), frame(RST_STREAM, 0, stream, &cancel)].concat();
            if write.write_all(&both).await.is_err() {
                break;
            }
        }
    };
    let mut said = Vec::new();
    let listen = async {
        let _ = read.read_to_end(&mut said).await;
    };
    timeout(PATIENCE, async { tokio::join!(flood, listen) }).await.expect("the flood goes on");
    honest_clients_are_served(&relay).await;
}
