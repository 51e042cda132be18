//! The client: targets byte for byte, `Host`, TLS, the deny list, and how far a failed exchange came.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use http::{HeaderMap, Response, StatusCode, Uri, header};
use restante_federation::{
    AddressPolicy, BaseUrl, Body, ClientConfig, Connection, Exchange, ExchangeError,
    FederationClient, Patience, Peer, ServeLimits, Stage, collect_limited, full,
};
use restante_federation_proto::{ServerName, SigningKey};
use tokio::net::TcpListener;

use crate::world::{Certificates, PATIENCE, Server, client, get, peer};

/// Answers with what it was asked for: target, `Host`, and the peer's port.
fn echo() -> Router {
    Router::new().fallback(
        async |uri: Uri, headers: HeaderMap, connection: axum::Extension<Connection>| {
            let host = headers[header::HOST].to_str().unwrap().to_owned();
            format!("{uri} {host} {}", connection.peer.port())
        },
    )
}

async fn text(response: Response<Body>) -> String {
    assert_eq!(response.status(), StatusCode::OK);
    let bytes = collect_limited(response.into_body(), 1000).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn ask(client: &FederationClient, peer: &Peer, target: &str) -> String {
    text(client.exchange(peer, get(target), PATIENCE).await.unwrap()).await
}

#[tokio::test]
async fn the_target_travels_byte_for_byte() {
    let server = Server::start(echo()).await;
    let client = client(ClientConfig::default());
    let b = peer("b.example", &format!("http://{}", server.address));
    for target in ["/", "/a%2Fb/%41/../c//d/./e?", "/@u:b.example/$x?a=%2f&b=+&&", "//double?q#"] {
        let sent = target.trim_end_matches('#');
        let answer = ask(&client, &b, sent).await;
        assert_eq!(answer.split(' ').next(), Some(sent));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_route_is_used_and_named_as_host_and_its_connection_kept() {
    let server = Server::start(echo()).await;
    let url = format!("http://localhost:{}", server.address.port());
    let name: ServerName = "b.example".parse().unwrap();
    let routes = BTreeMap::from([(name.clone(), url.parse().unwrap())]);
    let client = client(ClientConfig { routes, ..ClientConfig::default() });
    let first = ask(&client, &name.clone().into(), "/x").await;
    let second = ask(&client, &name.into(), "/x").await;
    assert!(first.starts_with(&format!("/x localhost:{} ", server.address.port())), "{first}");
    assert_eq!(first, second, "both came over one connection");
    server.stop().await;
}

#[tokio::test]
async fn bodies_go_both_ways() {
    let router = Router::new().fallback(async |body: bytes::Bytes| body);
    let server = Server::start(router).await;
    let client = client(ClientConfig::default());
    let mut request = get("/");
    *request.method_mut() = http::Method::PUT;
    let large = vec![b'x'; 1_000_000];
    *request.body_mut() = full(large.clone());
    let b = peer("b.example", &format!("http://{}", server.address));
    let answer = client.exchange(&b, request, PATIENCE).await.unwrap();
    let answer = collect_limited(answer.into_body(), 2_000_000).await.unwrap();
    assert_eq!(answer, large);
    server.stop().await;
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let moved = || async { (StatusCode::FOUND, [(header::LOCATION, "/elsewhere")]) };
    let server = Server::start(Router::new().fallback(moved)).await;
    let b = peer("b.example", &format!("http://{}", server.address));
    let client = client(ClientConfig::default());
    let answer = client.exchange(&b, get("/"), PATIENCE).await.unwrap();
    assert_eq!(answer.status(), StatusCode::FOUND);
    server.stop().await;
}

#[tokio::test]
async fn only_certificates_of_known_authorities_are_accepted() {
    let certificates = Certificates::new();
    let tls = Some(certificates.server.clone());
    let server = Server::start_with(echo(), ServeLimits::default(), tls).await;
    let b = peer("b.example", &format!("https://localhost:{}", server.address.port()));

    let extra_ca_files = vec![certificates.authority.clone()];
    let trusting = client(ClientConfig { extra_ca_files, ..ClientConfig::default() });
    assert!(ask(&trusting, &b, "/x").await.starts_with("/x localhost:"));

    let stranger = client(ClientConfig::default());
    let refused = stranger.exchange(&b, get("/x"), PATIENCE).await;
    assert!(matches!(refused, Err(ExchangeError::Connect { .. })), "{refused:?}");
    server.stop().await;
}

#[tokio::test]
async fn an_address_literal_is_called_by_tls_and_only_where_allowed() {
    let certificates = Certificates::new();
    let tls = Some(certificates.server.clone());
    let server = Server::start_with(echo(), ServeLimits::default(), tls).await;
    let name: ServerName = server.address.to_string().parse().unwrap();
    let with = |networks: &[&str]| {
        let allow_networks = networks.iter().map(|net| net.parse().unwrap()).collect();
        client(ClientConfig {
            addresses: AddressPolicy { allow_networks },
            extra_ca_files: vec![certificates.authority.clone()],
            ..ClientConfig::default()
        })
    };
    let allowed = with(&["127.0.0.0/8"]);
    let answer = ask(&allowed, &name.clone().into(), "/x").await;
    assert!(answer.starts_with(&format!("/x {name} ")), "{answer}");

    let denied = with(&[]).exchange(&name.into(), get("/x"), PATIENCE).await;
    assert!(matches!(denied, Err(ExchangeError::Denied { .. })), "{denied:?}");
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_found_is_said_to_be_so() {
    let client = client(ClientConfig::default());
    let key = SigningKey::from_seed("ed25519:1".parse().unwrap(), &[1; 32]).public_key();
    for name in [ServerName::of_key(&key), "b.example".parse().unwrap()] {
        let outcome = client.exchange(&name.into(), get("/"), PATIENCE).await;
        assert!(matches!(outcome, Err(ExchangeError::Unresolvable { .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_failed_exchange_tells_how_far_it_came() {
    let client = client(ClientConfig::default());
    let hurried = Patience { answer: Duration::from_millis(50), ..PATIENCE };

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = peer("b.example", &format!("http://{}", closed.local_addr().unwrap()));
    drop(closed);
    let refused = client.exchange(&nobody, get("/"), PATIENCE).await;
    assert!(matches!(refused, Err(ExchangeError::Connect { .. })), "{refused:?}");

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute = peer("b.example", &format!("http://{}", silent.local_addr().unwrap()));
    let unanswered = client.exchange(&mute, get("/"), hurried).await;
    let late = matches!(unanswered, Err(ExchangeError::Timeout { stage: Stage::Answer, .. }));
    assert!(late, "{unanswered:?}");

    // Takes the request, then hangs up without an answer.
    let hang_up = async {
        let (mut tcp, _) = silent.accept().await.unwrap();
        drop(tcp_head(&mut tcp).await);
        let (mut tcp, _) = silent.accept().await.unwrap();
        drop(tcp_head(&mut tcp).await);
    };
    let (broken, ()) = tokio::join!(client.exchange(&mute, get("/"), PATIENCE), hang_up);
    assert!(matches!(broken, Err(ExchangeError::Broken { .. })), "{broken:?}");
}

async fn tcp_head(tcp: &mut tokio::net::TcpStream) -> Vec<u8> {
    use tokio::io::AsyncReadExt;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = tcp.read_u8().await else { break };
        head.push(byte);
    }
    head
}

#[tokio::test]
async fn a_slow_tls_handshake_costs_the_patience_for_connecting_alone() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute = peer("b.example", &format!("https://{}", silent.local_addr().unwrap()));
    let hurried = Patience { connect: Duration::from_millis(50), ..PATIENCE };
    let outcome = client(ClientConfig::default()).exchange(&mute, get("/"), hurried).await;
    let late = matches!(outcome, Err(ExchangeError::Timeout { stage: Stage::Connect, .. }));
    assert!(late, "{outcome:?}");
}

#[test]
fn a_certificate_authority_file_that_is_none_is_refused_by_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let extra_ca_files = vec![file.path().to_owned()];
    let config = ClientConfig { extra_ca_files, ..ClientConfig::default() };
    let clock = std::sync::Arc::new(restante_federation_proto::SystemClock);
    let Err(error) = FederationClient::new(config, clock) else { panic!("an empty file") };
    assert!(error.to_string().contains(file.path().to_str().unwrap()), "{error}");
}

#[tokio::test]
async fn a_strangers_url_leads_nowhere_that_a_strangers_name_does_not_and_a_route_goes_before_it() {
    let server = Server::start(echo()).await;
    let url: BaseUrl = format!("http://{}", server.address).parse().unwrap();
    let name: ServerName = "r.example".parse().unwrap();
    let named = Peer::of_stranger(name.clone(), Some(url.clone()));
    let strict = client(ClientConfig::default());
    // The operator's own word opened a connection there, which is kept.
    ask(&strict, &Peer::new(name.clone(), Some(url.clone())), "/x").await;
    let denied = strict.exchange(&named, get("/x"), PATIENCE).await;
    assert!(matches!(denied, Err(ExchangeError::Denied { .. })), "{denied:?}");

    let allow_networks = vec!["127.0.0.0/8".parse().unwrap()];
    let addresses = AddressPolicy { allow_networks };
    let allowing = client(ClientConfig { addresses, ..ClientConfig::default() });
    assert!(ask(&allowing, &named, "/x").await.starts_with("/x 127.0.0.1:"));

    let routes = BTreeMap::from([(name.clone(), url)]);
    let routed = client(ClientConfig { routes, ..ClientConfig::default() });
    let elsewhere = Peer::of_stranger(name, Some("http://127.0.0.1:1".parse().unwrap()));
    assert!(ask(&routed, &elsewhere, "/x").await.starts_with("/x 127.0.0.1:"));
    server.stop().await;
}

#[tokio::test]
async fn a_strangers_url_without_tls_leads_to_networks_alone_that_the_operator_allows() {
    let patience = Duration::from_secs(1);
    let patience = Patience { connect: patience, answer: patience };
    let client = client(ClientConfig::default());
    let in_clear = "http://8.8.8.8:9".parse().unwrap();
    let named = Peer::of_stranger("r.example".parse().unwrap(), Some(in_clear));
    let denied = client.exchange(&named, get("/x"), patience).await;
    assert!(matches!(denied, Err(ExchangeError::Denied { .. })), "{denied:?}");
}

#[tokio::test]
async fn the_operators_word_on_where_a_web_site_is_counts() {
    let page = || async { (StatusCode::OK, "the file") };
    let moved = || async { (StatusCode::FOUND, [(header::LOCATION, "/.well-known/here")]) };
    let router = Router::new()
        .route("/.well-known/here", axum::routing::get(page))
        .route("/.well-known/moved", axum::routing::get(moved));
    let server = Server::start(router).await;
    let name: ServerName = "b.example".parse().unwrap();
    let web_sites =
        BTreeMap::from([(name.clone(), format!("http://{}", server.address).parse().unwrap())]);
    let client = client(ClientConfig { web_sites, ..ClientConfig::default() });
    let file = async |path| client.web_file(&name, path, PATIENCE.connect).await;
    assert_eq!(file("/.well-known/here").await.unwrap(), "the file");
    assert!(file("/.well-known/moved").await.unwrap_err().to_string().contains("302"));
    assert!(file("/.well-known/none").await.unwrap_err().to_string().contains("404"));
    server.stop().await;
}
