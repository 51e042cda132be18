//! Server connections: accepts, bounds and times them, speaks TLS from certificate files that may
//! be renewed meanwhile, and shuts down softly.

mod answer;
mod caller;
mod connection;
mod forwarded;
mod inherited;
mod local;
mod open;
mod stall;
mod tls;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use caller::{Caller, ConnectionsPerAddress};
pub use forwarded::TrustedProxies;
pub use inherited::InheritedSockets;
pub use local::{LocalListener, serve_local};
pub use open::OpenConnections;
pub use tls::{Certificate, Reloaded};

use caller::Callers;
use connection::{Driver, drive};

/// After an accept that failed for want of file handles or memory: until the next one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// Bounds of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeLimits {
    /// Connections at once; further ones wait in the kernel's queue.
    pub connections_max: usize,
    /// For the TLS handshake and for each request's head. An idle connection is closed after this as well.
    pub head_timeout: Duration,
    /// Bytes of a request's head.
    pub head_bytes_max: usize,
    /// After shutdown is asked for: how long requests under way may take.
    pub drain: Duration,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            head_timeout: Duration::from_secs(30),
            head_bytes_max: 64 * 1024,
            drain: Duration::from_secs(10),
        }
    }
}

/// Which of a program's doors a listener is: its name in socket units, and its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The name.
    pub door: &'a str,
    /// The configured address.
    pub address: SocketAddr,
}

/// Certificate chain and key, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why a listener can't start; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// The address can't be bound.
    #[error("cannot listen on {address}; choose another address or stop the process that uses it")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A certificate or key can't be used.
    #[error("cannot use the certificate files: {0}")]
    Tls(String),
}

/// A bound listener.
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    tls: Option<Certificate>,
    callers: Option<Callers>,
    proxies: TrustedProxies,
    open: OpenConnections,
}

impl Listener {
    /// Binds `address`; with `tls`, reads the files.
    pub async fn bind(address: SocketAddr, tls: Option<TlsFiles>) -> Result<Self, ListenerError> {
        let place = Place { door: "", address };
        Self::open(place, tls, &mut InheritedSockets::default()).await
    }

    /// Takes the inherited socket that fits `place`, else binds its address; with `tls`, reads the files.
    pub async fn open(
        place: Place<'_>,
        tls: Option<TlsFiles>,
        inherited: &mut InheritedSockets,
    ) -> Result<Self, ListenerError> {
        let tls = match tls {
            Some(files) => Some(Certificate::open(files).await.map_err(ListenerError::Tls)?),
            None => None,
        };
        let bind_error = |source| ListenerError::Bind { address: place.address, source };
        let tcp = match inherited.take(place) {
            Some(socket) => TcpListener::from_std(socket),
            None => TcpListener::bind(place.address).await,
        };
        let tcp = tcp.map_err(bind_error)?;
        let address = tcp.local_addr().map_err(bind_error)?;
        let (proxies, open) = (TrustedProxies::default(), OpenConnections::default());
        Ok(Self { tcp, address, tls, callers: None, proxies, open })
    }

    /// The same listener, which believes these proxies when they say for whom they call. Those on loopback are always
    /// believed.
    #[must_use]
    pub fn behind(self, proxies: TrustedProxies) -> Self {
        Self { proxies, ..self }
    }

    /// The same listener, which bounds the connections of each address.
    #[must_use]
    pub fn bounded(self, limit: ConnectionsPerAddress) -> Self {
        Self { callers: Some(Callers::new(limit)), ..self }
    }

    /// The certificate in use, if it speaks TLS.
    pub fn certificate(&self) -> Option<Certificate> {
        self.tls.clone()
    }

    /// How many connections it has open.
    pub fn open_connections(&self) -> OpenConnections {
        self.open.clone()
    }

    /// The address that was bound, with the port that the system chose for 0.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }
}

/// Who is at the other end; handlers find it in the request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The address at the other end of the connection: the client's, or a reverse proxy's.
    pub peer: SocketAddr,
    /// The client's address: what limits count and logs name.
    pub client: IpAddr,
    /// Whether the peer is one whose word about its client counts.
    pub via: Via,
}

/// How a request came to a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// From a stranger's connection: what its headers say of other connections counts for nothing.
    Stranger,
    /// From a trusted proxy, or from this machine.
    TrustedProxy,
}

/// Serves `router` on `listener` until `shutdown`, then lets requests under way finish within the drain time.
/// HTTP/1.1 and HTTP/2; the request target reaches handlers byte for byte, absolute-form included; CONNECT upgrades work.
pub async fn serve(
    listener: Listener,
    router: axum::Router,
    limits: ServeLimits,
    shutdown: CancellationToken,
) {
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    // Whoever drops this future early still leaves no connection behind.
    let _guard = cut.clone().drop_guard();
    let driver = Driver::new(router, limits, listener.proxies.clone(), shutdown.clone());
    let driver = Arc::new(driver);
    let slots = Arc::new(Semaphore::new(limits.connections_max));

    let accept = async {
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let Some((tcp, peer)) = accepted(listener.tcp.accept().await).await else { continue };
            let counted = listener.callers.as_ref().map(|callers| callers.admit(peer.ip()));
            if matches!(counted, Some(None)) {
                continue;
            }
            let (driver, tls, cut) = (driver.clone(), listener.tls.clone(), cut.clone());
            let open = listener.open.one_more();
            connections.spawn(async move {
                let (_slot, _counted, _open) = (slot, counted, open);
                cut.run_until_cancelled(serve_one(driver, tls, tcp, peer)).await;
            });
        }
    };
    let renewal = async {
        match &listener.tls {
            Some(certificate) => certificate.keep_up().await,
            None => std::future::pending().await,
        }
    };
    shutdown.run_until_cancelled(async { tokio::join!(accept, renewal) }).await;

    drop(listener);
    let_finish(&connections, &cut, limits.drain).await;
}

/// Waits for requests under way, and cuts those that take too long.
async fn let_finish(connections: &TaskTracker, cut: &CancellationToken, drain: Duration) {
    connections.close();
    if timeout(drain, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "cutting requests that took too long");
        cut.cancel();
        connections.wait().await;
    }
}

/// What was accepted; after an error that is nobody's but this machine's, a pause.
async fn accepted<T>(accepted: io::Result<T>) -> Option<T> {
    match accepted {
        Ok(accepted) => Some(accepted),
        Err(error) if is_of_the_peer(&error) => None,
        Err(error) => {
            tracing::warn!(%error, "cannot accept connections; raise the limit of open files");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// The peer was gone before its connection was accepted: nothing is wrong here.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
    )
}

async fn serve_one(
    driver: Arc<Driver>,
    tls: Option<Certificate>,
    tcp: TcpStream,
    peer: SocketAddr,
) {
    // Answers are written whole; waiting for more to send only delays them.
    let _ = tcp.set_nodelay(true);
    let Some(certificate) = tls else { return drive(driver, tcp, peer).await };
    match timeout(driver.limits.head_timeout, certificate.acceptor().accept(tcp)).await {
        Ok(Ok(stream)) => drive(driver, stream, peer).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
    }
}
