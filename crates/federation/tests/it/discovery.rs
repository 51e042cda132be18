//! From a server name to its homeserver, with a name server of our own: no well-known file, an SRV record, TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use http::HeaderMap;
use restante_federation::{
    AddressPolicy, ClientConfig, DnsConfig, Exchange, ExchangeError, FederationClient, ServeLimits,
    collect_limited,
};
use restante_federation_proto::{ServerName, SystemClock};
use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

use crate::world::{Certificates, PATIENCE, Server, get};

/// Knows that `b.example` has its service at `home.example`, on this machine at `port`.
async fn name_server(port: u16) -> (SocketAddr, AbortOnDropHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut packet = [0; 2048];
        loop {
            let (length, peer) = socket.recv_from(&mut packet).await.unwrap();
            let answer = answer(Message::from_vec(&packet[..length]).unwrap(), port);
            socket.send_to(&answer.to_vec().unwrap(), peer).await.unwrap();
        }
    });
    (address, AbortOnDropHandle::new(task))
}

fn answer(question: Message, port: u16) -> Message {
    let query = question.queries[0].clone();
    let name = query.name().clone();
    let data = match (name.to_ascii().as_str(), query.query_type()) {
        ("home.example.", RecordType::A) => Some(RData::A(A::new(127, 0, 0, 1))),
        ("_matrix-fed._tcp.b.example.", RecordType::SRV) => {
            let target = Name::from_ascii("home.example.").unwrap();
            Some(RData::SRV(SRV::new(10, 5, port, target)))
        }
        _ => None,
    };
    let mut answer = question.into_response();
    match data {
        Some(data) => {
            answer.add_answer(Record::from_rdata(name, 60, data));
        }
        None => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    answer
}

#[tokio::test]
async fn a_server_is_found_by_its_srv_record_and_called_by_its_own_name() {
    let certificates = Certificates::for_names(&["b.example"]);
    let router = Router::new()
        .fallback(async |headers: HeaderMap| headers["host"].to_str().unwrap().to_owned());
    let tls = Some(certificates.server.clone());
    let server = Server::start_with(router, ServeLimits::default(), tls).await;
    let (dns, _task) = name_server(server.address.port()).await;
    let with = |networks: &[&str]| {
        let config = ClientConfig {
            addresses: AddressPolicy {
                allow_networks: networks.iter().map(|net| net.parse().unwrap()).collect(),
            },
            dns: DnsConfig::Servers(vec![dns]),
            extra_ca_files: vec![certificates.authority.clone()],
            ..ClientConfig::default()
        };
        FederationClient::new(config, Arc::new(SystemClock)).unwrap()
    };
    let b: ServerName = "b.example".parse().unwrap();

    let answer = with(&["127.0.0.0/8"]).exchange(&b.clone().into(), get("/"), PATIENCE).await;
    let answer = collect_limited(answer.unwrap().into_body(), 100).await.unwrap();
    assert_eq!(answer, "b.example");

    let denied = with(&[]).exchange(&b.into(), get("/"), PATIENCE).await;
    assert!(matches!(denied, Err(ExchangeError::Denied { .. })), "{denied:?}");
    server.stop().await;
}
