//! The load's own connection: bytes that were prepared go out, and of the answer no more is looked at than where it ends.
//!
//! Load and relay share the machine. What the load does not spend, the relay can be measured with.

mod answer;

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use answer::{Head, Length};

/// Read at once at least: an answer with a receipt comes in one piece.
const PIECE_BYTES: usize = 64 * 1024;

/// One HTTP/1.1 connection, on which requests follow each other.
pub(crate) struct Wire {
    tcp: TcpStream,
    received: Vec<u8>,
    body: Vec<u8>,
}

impl Wire {
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let tcp = TcpStream::connect(address).await;
        let tcp = tcp.with_context(|| format!("cannot connect to {address}"))?;
        tcp.set_nodelay(true)?;
        Ok(Self { tcp, received: Vec::with_capacity(PIECE_BYTES), body: Vec::new() })
    }

    /// Sends `request` and reads its answer, which must be a 200; the answer's body.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> anyhow::Result<&[u8]> {
        self.tcp.write_all(request).await.context("a request broke off")?;
        self.received.clear();
        let head = self.read_head().await?;
        self.read_body(&head).await?;
        let body = match head.length {
            Length::Bytes(_) => &self.received[head.bytes..],
            Length::Chunked => &self.body,
        };
        let told = &body[..body.len().min(500)];
        ensure!(head.status == 200, "got {}: {}", head.status, String::from_utf8_lossy(told));
        Ok(body)
    }

    async fn read_head(&mut self) -> anyhow::Result<Head> {
        loop {
            self.read_piece(PIECE_BYTES).await?;
            if let Some(head) = Head::of(&self.received)? {
                return Ok(head);
            }
        }
    }

    async fn read_body(&mut self, head: &Head) -> anyhow::Result<()> {
        match head.length {
            Length::Bytes(length) => {
                while self.received.len() < head.bytes + length {
                    let missing = head.bytes + length - self.received.len();
                    self.read_piece(missing.max(PIECE_BYTES)).await?;
                }
                ensure!(
                    self.received.len() == head.bytes + length,
                    "more came than the answer announced"
                );
            }
            Length::Chunked => loop {
                if let Some(body) = answer::from_chunks(&self.received[head.bytes..])? {
                    self.body = body;
                    return Ok(());
                }
                self.read_piece(PIECE_BYTES).await?;
            },
        }
        Ok(())
    }

    async fn read_piece(&mut self, bytes: usize) -> anyhow::Result<()> {
        self.received.reserve(bytes);
        let read = self.tcp.read_buf(&mut self.received).await.context("an answer broke off")?;
        ensure!(read > 0, "the connection was closed before the answer was whole");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// A server that gives these answers one after the other, in pieces of a few bytes.
    async fn server(answers: &'static [&'static str]) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            tcp.set_nodelay(true).unwrap();
            for answer in answers {
                let mut request = [0; 4];
                tcp.read_exact(&mut request).await.unwrap();
                for piece in answer.as_bytes().chunks(7) {
                    tcp.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn answers_follow_each_other_whole_however_they_come() {
        let address = server(&[
            "HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nhello, world",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\na\r\n0123456789\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        ])
        .await;
        let mut wire = Wire::open(address).await.unwrap();
        assert_eq!(wire.ask(b"PUT1").await.unwrap(), b"hello, world");
        assert_eq!(wire.ask(b"PUT2").await.unwrap(), b"abc0123456789");
        assert_eq!(wire.ask(b"PUT3").await.unwrap(), b"");
        let ended = wire.ask(b"PUT4").await.unwrap_err().to_string();
        assert!(ended.contains("closed") || ended.contains("broke off"), "{ended}");
    }

    #[tokio::test]
    async fn a_refusal_is_told_with_its_text() {
        let address = server(&["HTTP/1.1 429 No\r\ncontent-length: 4\r\n\r\nslow"]).await;
        let refused = Wire::open(address).await.unwrap().ask(b"PUT1").await.unwrap_err();
        assert_eq!(refused.to_string(), "got 429: slow");
    }
}
