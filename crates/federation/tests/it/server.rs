//! Server connections: what reaches handlers, bounds, and shutdown.

use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use http::{StatusCode, Uri};
use hyper_util::rt::TokioIo;
use restante_federation::{
    ClientConfig, Connection, ConnectionsPerAddress, Exchange, Listener, ListenerError, Reloaded,
    ServeLimits, Via, collect_limited,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::world::{Certificates, PATIENCE, Server, client, get, peer};

fn limits() -> ServeLimits {
    ServeLimits::default()
}

async fn converse(server: &Server, request: &str) -> String {
    let mut tcp = TcpStream::connect(server.address).await.unwrap();
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn an_absolute_target_reaches_the_handler_byte_for_byte() {
    let router =
        Router::new().fallback(async |uri: Uri, connection: axum::Extension<Connection>| {
            assert!(connection.peer.ip().is_loopback());
            format!("{} {}", uri.authority().unwrap(), uri.path_and_query().unwrap())
        });
    let server = Server::start(router).await;
    let head = "PUT matrix-federation://b.test/a%2Fb/%41/..//c? HTTP/1.1\r\n\
                Host: b.test:80\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let answer = converse(&server, head).await;
    assert!(answer.ends_with("b.test /a%2Fb/%41/..//c?"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn connect_becomes_a_tunnel() {
    let router = Router::new().fallback(async |request: Request| {
        assert_eq!(request.method(), "CONNECT");
        let upgrade = hyper::upgrade::on(request);
        tokio::spawn(async move {
            let mut tunnel = TokioIo::new(upgrade.await.unwrap());
            let mut ping = [0; 4];
            tunnel.read_exact(&mut ping).await.unwrap();
            tunnel.write_all(b"pong").await.unwrap();
            tunnel.shutdown().await.unwrap();
        });
        StatusCode::OK
    });
    let server = Server::start(router).await;
    let mut tcp = TcpStream::connect(server.address).await.unwrap();
    tcp.write_all(b"CONNECT b.test:443 HTTP/1.1\r\nHost: b.test:443\r\n\r\n").await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.unwrap());
    }
    tcp.write_all(b"ping").await.unwrap();
    let mut rest = Vec::new();
    tcp.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"pong");
    server.stop().await;
}

#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_is_cut() {
    let limits = ServeLimits { head_timeout: Duration::from_millis(50), ..limits() };
    let server = Server::start_with(Router::new(), limits, None).await;
    for begun in ["", "P", "PRI", "GET / HTTP/1.1\r\nHost:"] {
        let mut tcp = TcpStream::connect(server.address).await.unwrap();
        tcp.write_all(begun.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = tcp.read_to_end(&mut answer).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{begun:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_tls_handshake_that_does_not_begin_is_cut() {
    let certificates = Certificates::new();
    let limits = ServeLimits { head_timeout: Duration::from_millis(50), ..limits() };
    let tls = Some(certificates.server.clone());
    let server = Server::start_with(Router::new(), limits, tls).await;
    let answer = converse(&server, "").await;
    assert_eq!(answer, "");
    server.stop().await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = Server::start(Router::new()).await;
    let head = format!("GET / HTTP/1.1\r\nHost: b\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let mut tcp = TcpStream::connect(server.address).await.unwrap();
    let _ = tcp.write_all(head.as_bytes()).await;
    let mut status = [0; 12];
    tcp.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 431");
    server.stop().await;
}

#[tokio::test]
async fn a_head_with_too_many_headers_is_refused() {
    let server = Server::start(Router::new()).await;
    let head = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(200));
    let answer = converse(&server, &head).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_proxy_on_loopback_says_for_whom_it_calls() {
    let router = Router::new().fallback(async |connection: axum::Extension<Connection>| {
        assert_eq!(connection.via, Via::TrustedProxy);
        connection.client.to_string()
    });
    let server = Server::start(router).await;
    let request = "GET / HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\
                   X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n";
    let answer = converse(&server, request).await;
    assert!(answer.ends_with("\r\n203.0.113.9"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_their_turn() {
    let limits = ServeLimits { connections_max: 1, ..limits() };
    let answer = || async { "served" };
    let server = Server::start_with(Router::new().fallback(answer), limits, None).await;
    let first = TcpStream::connect(server.address).await.unwrap();
    let head = "GET / HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n";
    let leave = async { drop(first) };
    let (answer, ()) = tokio::join!(converse(&server, head), leave);
    assert!(answer.ends_with("served"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_request_under_way_is_finished_before_the_server_stops() {
    let (begun, proceed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (begun, proceed) = (begun.clone(), proceed.clone());
        move || async move {
            begun.notify_one();
            proceed.notified().await;
            "finished"
        }
    };
    let server = Server::start(Router::new().fallback(handler)).await;
    let _idle = TcpStream::connect(server.address).await.unwrap();
    let client = client(ClientConfig::default());
    let b = peer("b.example", &format!("http://{}", server.address));
    let shutdown = server.shutdown.clone();
    let stop = async {
        begun.notified().await;
        shutdown.cancel();
        proceed.notify_one();
    };
    let (answer, ()) = tokio::join!(client.exchange(&b, get("/"), PATIENCE), stop);
    let answer = collect_limited(answer.unwrap().into_body(), 100).await.unwrap();
    assert_eq!(answer, "finished");
    server.stop().await;
}

#[tokio::test]
async fn a_request_that_outlasts_the_drain_time_is_cut() {
    let begun = Arc::new(Notify::new());
    let handler = {
        let begun = begun.clone();
        move || async move {
            begun.notify_one();
            std::future::pending::<()>().await;
        }
    };
    let limits = ServeLimits { drain: Duration::from_millis(20), ..limits() };
    let server = Server::start_with(Router::new().fallback(handler), limits, None).await;
    let mut tcp = TcpStream::connect(server.address).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: b\r\n\r\n").await.unwrap();
    begun.notified().await;
    server.stop().await;
}

#[tokio::test]
async fn a_port_in_use_and_certificates_that_are_none_are_said_to_be_so() {
    let server = Server::start(Router::new()).await;
    let taken = Listener::bind(server.address, None).await;
    assert!(matches!(taken, Err(ListenerError::Bind { .. })));
    server.stop().await;

    let mut files = Certificates::new().server;
    let missing = Listener::bind("127.0.0.1:0".parse().unwrap(), Some(files.clone())).await;
    let Err(ListenerError::Tls(reason)) = missing else { panic!("the folder is gone") };
    assert!(reason.contains("certificate.pem"), "{reason}");

    let (one, other) = (Certificates::new(), Certificates::new());
    files.certificate = one.server.certificate.clone();
    files.key = other.server.key.clone();
    let mismatch = Listener::bind("127.0.0.1:0".parse().unwrap(), Some(files)).await;
    assert!(matches!(mismatch, Err(ListenerError::Tls(_))));
}

/// A connection to a server whose certificate `of` must have issued.
async fn connect_trusting(
    of: &Certificates,
    server: std::net::SocketAddr,
) -> io::Result<TlsStream<TcpStream>> {
    let authority = fs::read(&of.authority).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&authority).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(server).await?;
    TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), tcp).await
}

#[tokio::test]
async fn a_renewed_certificate_is_for_new_connections_and_a_half_written_one_for_none() {
    let (old, new) = (Certificates::new(), Certificates::new());
    let files = old.server.clone();
    let listener =
        Listener::bind("127.0.0.1:0".parse().unwrap(), Some(files.clone())).await.unwrap();
    let certificate = listener.certificate().unwrap();
    let router = Router::new().fallback(async || "served");
    let server = Server::on(listener, router, limits());
    let mut before = connect_trusting(&old, server.address).await.unwrap();
    assert_eq!(certificate.reload().await.unwrap(), Reloaded::Unchanged);

    fs::copy(&new.server.certificate, &files.certificate).unwrap();
    let refused = certificate.reload().await.unwrap_err().to_string();
    assert!(refused.contains("don't fit together"), "{refused}");
    connect_trusting(&old, server.address).await.unwrap();

    fs::copy(&new.server.key, &files.key).unwrap();
    assert_eq!(certificate.reload().await.unwrap(), Reloaded::Renewed);
    connect_trusting(&new, server.address).await.unwrap();
    assert!(connect_trusting(&old, server.address).await.is_err());

    before.write_all(b"GET / HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    before.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("served"), "{answer}");
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_renewed_certificate_is_taken_up_unasked() {
    let (old, new) = (Certificates::new(), Certificates::new());
    let server = Server::start_with(Router::new(), limits(), Some(old.server.clone())).await;
    fs::copy(&new.server.certificate, &old.server.certificate).unwrap();
    fs::copy(&new.server.key, &old.server.key).unwrap();
    let taken_up = async {
        while connect_trusting(&new, server.address).await.is_err() {
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    };
    // Of virtual time, of which a handshake may use much: it passes whenever nothing else happens.
    tokio::time::timeout(Duration::from_mins(60), taken_up).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn an_address_with_too_many_connections_gets_no_further_one_until_it_closes_one() {
    let limit = ConnectionsPerAddress { max: NonZeroUsize::MIN, exempt: Vec::new() };
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    let router = Router::new().fallback(async || "served");
    let server = Server::on(listener.bounded(limit), router, limits());
    let head = "GET / HTTP/1.1\r\nHost: b\r\n\r\n";
    let mut first = TcpStream::connect(server.address).await.unwrap();
    first.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    first.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");

    let mut second = TcpStream::connect(server.address).await.unwrap();
    let _ = second.write_all(head.as_bytes()).await;
    let closed = second.read(&mut status).await;
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");

    let head = "GET / HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n";
    first.write_all(head.as_bytes()).await.unwrap();
    first.read_to_end(&mut Vec::new()).await.unwrap();
    // The server forgets a connection a moment after its client has seen the end.
    let served = async {
        loop {
            let mut tcp = TcpStream::connect(server.address).await.unwrap();
            let _ = tcp.write_all(head.as_bytes()).await;
            let mut answer = Vec::new();
            if tcp.read_to_end(&mut answer).await.is_ok_and(|read| read > 0) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE.answer, served).await.unwrap();
    server.stop().await;
}
