//! Where a door is open, and to whom.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use axum::Router;
use axum::routing::get;
use restante_federation::{Listener, ServeLimits};
use restante_operators::{Entrance, SOCKET_FILE};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct Open {
    port: u16,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

impl Open {
    async fn at(folder: &Path, names: &[&str]) -> Self {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), None).await.unwrap();
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let entrance = Entrance::open(listener, &names, folder);
        let (port, shutdown) = (entrance.local_address().port(), CancellationToken::new());
        let door = Router::new().route("/health", get(async || "alive"));
        let serving = entrance.serve(door, ServeLimits::default(), shutdown.clone());
        Self { port, shutdown, serving: tokio::spawn(serving) }
    }

    async fn close(self) {
        self.shutdown.cancel();
        self.serving.await.unwrap();
    }

    async fn at_address(&self, host: &str) -> String {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        health(stream, host).await
    }
}

async fn health(mut stream: impl AsyncRead + AsyncWrite + Unpin, host: &str) -> String {
    let request = format!("GET /health HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn is_alive(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200") && answer.ends_with("alive")
}

#[tokio::test]
async fn the_socket_is_its_owners_alone_and_takes_the_place_of_an_earlier_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(SOCKET_FILE);
    for _ in 0..2 {
        let open = Open::at(folder.path(), &[]).await;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let stream = UnixStream::connect(&path).await.unwrap();
        let answer = health(stream, "Host: whatever.example\r\n").await;
        assert!(is_alive(&answer), "{answer}");
        open.close().await;
        // What a program leaves behind that was killed.
        assert!(UnixStream::connect(&path).await.is_err());
    }
}

#[tokio::test]
async fn where_there_can_be_no_socket_the_address_is_open_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("x".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let taken = folder.path().join(SOCKET_FILE);
    std::fs::write(&taken, "a file of somebody's").unwrap();
    for folder in [deep.as_path(), folder.path()] {
        let open = Open::at(folder, &[]).await;
        let answer = open.at_address("Host: localhost\r\n").await;
        assert!(is_alive(&answer), "{answer}");
        open.close().await;
    }
    assert_eq!(std::fs::read_to_string(&taken).unwrap(), "a file of somebody's");
}

#[tokio::test]
async fn a_web_page_whose_name_leads_to_the_door_reads_nothing_there() {
    let folder = tempfile::tempdir().unwrap();
    let open = Open::at(folder.path(), &["relay.internal"]).await;
    let port = open.port;
    for host in ["evil.example", &format!("evil.example:{port}"), ""] {
        let answer = open.at_address(&format!("Host: {host}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{host}: {answer}");
        assert!(answer.contains("list the name as hosts"), "{answer}");
    }
    let two = open.at_address("Host: localhost\r\nHost: evil.example\r\n").await;
    assert!(!is_alive(&two), "{two}");
    for host in [&*format!("127.0.0.1:{port}"), "localhost", "relay.internal:80"] {
        let answer = open.at_address(&format!("Host: {host}\r\n")).await;
        assert!(is_alive(&answer), "{host}: {answer}");
    }
    open.close().await;
}
