//! What can be done with bytes and connections before there is a request.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{PATIENCE, connect, converse, honest_clients_are_served};
use crate::harness::{TestRelay, TestServer};

fn status(answer: &[u8]) -> &str {
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    std::str::from_utf8(line).unwrap_or_default()
}

#[tokio::test]
async fn heads_that_never_end_keep_nobody_out() {
    let relay = TestRelay::start().await;
    let mut slow = Vec::new();
    for beginning in ["", "P", "PUT /_matrix", "GET / HTTP/1.1\r\nHost: x\r\nX: "] {
        for _ in 0..50 {
            let mut connection = connect(&relay).await;
            connection.write_all(beginning.as_bytes()).await.unwrap();
            slow.push(connection);
        }
    }
    honest_clients_are_served(&relay).await;
}

#[tokio::test]
async fn bodies_that_never_end_keep_nobody_out() {
    let relay = TestRelay::start().await;
    let mut slow = Vec::new();
    for framing in ["Content-Length: 16000000", "Transfer-Encoding: chunked"] {
        for _ in 0..50 {
            let mut connection = connect(&relay).await;
            let head = format!(
                "PUT /_matrix/federation/v1/send_relay/t/@u:b HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n"
            );
            connection.write_all(head.as_bytes()).await.unwrap();
            connection.write_all(b"1\r\n{").await.unwrap();
            slow.push(connection);
        }
    }
    honest_clients_are_served(&relay).await;
}

#[tokio::test]
async fn a_head_that_is_too_large_or_has_too_many_lines_is_431() {
    let relay = TestRelay::start().await;
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(5_000));
    let path = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(1 << 20));
    for (case, head) in [("long", long), ("many", many), ("path", path)] {
        let answer = converse(&relay, head.as_bytes()).await;
        let answered = status(&answer);
        // A relay that has read enough closes at once, and its answer may get lost with what it did not read.
        let is_refusal = ["", "HTTP/1.1 431 ", "HTTP/1.1 414 ", "HTTP/1.1 400 "]
            .iter()
            .any(|beginning| answered.starts_with(beginning));
        assert!(is_refusal && !answered.contains(" 200 "), "{case}: {answered}");
    }
    honest_clients_are_served(&relay).await;
}

#[tokio::test]
async fn a_chunked_body_without_end_is_413_once_it_is_too_large() {
    let relay = TestRelay::start_with("[limits]\nbody_bytes_max = 1000").await;
    let (mut read, mut write) = connect(&relay).await.into_split();
    let authorization = TestServer::new(9).misplaced_signature(&relay);
    let head = format!(
        "PUT /_matrix/federation/v1/send_relay/t/@u:b HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    write.write_all(head.as_bytes()).await.unwrap();
    let endless = async {
        for _ in 0..100_000 {
            if write.write_all(b"64\r\n").await.is_err()
                || write.write_all(&[b'x'; 100]).await.is_err()
                || write.write_all(b"\r\n").await.is_err()
            {
                // Cut, with the answer before it.
                std::future::pending::<()>().await;
            }
        }
    };
    let mut said = [0; 12];
    let answered = async {
        read.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"HTTP/1.1 413");
    };
    tokio::select! {
        () = endless => panic!("10 MB were read of a body that may have 1,000 bytes"),
        answered = timeout(PATIENCE, answered) => answered.unwrap(),
    }
    honest_clients_are_served(&relay).await;
}

#[tokio::test]
async fn garbage_is_answered_400_or_cut() {
    let relay = TestRelay::start().await;
    let client_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice();
    let noise: Vec<u8> =
        (0..4096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let inputs: [&[u8]; 9] = [
        b"\r\n\r\n\r\n",
        b"\0\0\0\0",
        &noise,
        client_hello,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnot a frame, and not the beginning of one",
    ];
    for input in inputs {
        let answer = converse(&relay, input).await;
        let answered = status(&answer);
        assert!(!answered.contains(" 200 ") && !answered.contains(" 500 "), "{answered}");
    }
    honest_clients_are_served(&relay).await;
}

#[tokio::test]
async fn idle_connections_keep_nobody_out() {
    let relay = TestRelay::start().await;
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(connect(&relay).await);
    }
    honest_clients_are_served(&relay).await;
}
