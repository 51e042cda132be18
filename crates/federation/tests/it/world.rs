//! What the tests share: a server on loopback, a client, certificates.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::Request;
use restante_federation::{
    Body, ClientConfig, DnsConfig, FederationClient, Listener, Patience, Peer, ServeLimits,
    TlsFiles, empty, serve,
};
use restante_federation_proto::SystemClock;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longer than anything on loopback takes, on a machine that is busy.
pub(crate) const PATIENCE: Patience =
    Patience { connect: Duration::from_secs(20), answer: Duration::from_secs(20) };

/// A server that runs until it is stopped or dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) done: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(router: Router) -> Self {
        Self::start_with(router, ServeLimits::default(), None).await
    }

    pub(crate) async fn start_with(
        router: Router,
        limits: ServeLimits,
        tls: Option<TlsFiles>,
    ) -> Self {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), tls).await.unwrap();
        Self::on(listener, router, limits)
    }

    pub(crate) fn on(listener: Listener, router: Router, limits: ServeLimits) -> Self {
        let address = listener.local_address();
        let shutdown = CancellationToken::new();
        let done = tokio::spawn(serve(listener, router, limits, shutdown.clone()));
        Self { address, shutdown, done }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.done.await.unwrap();
    }
}

/// A client that asks no DNS.
pub(crate) fn client(config: ClientConfig) -> FederationClient {
    let config = ClientConfig { dns: DnsConfig::Off, ..config };
    FederationClient::new(config, Arc::new(SystemClock)).unwrap()
}

/// The server `name` at `url`.
pub(crate) fn peer(name: &str, url: &str) -> Peer {
    Peer::new(name.parse().unwrap(), Some(url.parse().unwrap()))
}

pub(crate) fn get(target: &str) -> Request<Body> {
    Request::get(target).body(empty()).unwrap()
}

/// A certificate authority and a server certificate, as files.
pub(crate) struct Certificates {
    _folder: tempfile::TempDir,
    pub(crate) authority: PathBuf,
    pub(crate) server: TlsFiles,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        Self::for_names(&["localhost", "127.0.0.1"])
    }

    pub(crate) fn for_names(names: &[&str]) -> Self {
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = parameters.self_signed(&authority_key).unwrap();
        let issuer = rcgen::Issuer::new(parameters, authority_key);

        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate =
            rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();

        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let authority = file("authority.pem", authority.pem());
        let certificate = file("certificate.pem", certificate.pem());
        let key = file("key.pem", key.serialize_pem());
        Self { _folder: folder, authority, server: TlsFiles { certificate, key } }
    }
}
