//! The floods: what strangers do to a relay that stands on the internet.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use restante_federation_proto::ServerName;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::connection::Connection;
use crate::origin::Origin;
use crate::process::RelayProcess;

/// Connections of a flood that asks as fast as it is answered.
const BUSY_CONNECTIONS: usize = 32;

/// Connections of a flood that only holds them.
const HELD_CONNECTIONS: usize = 2000;

/// Names that answer nothing when they are asked for their keys.
const SILENT_SERVERS: usize = 200;

/// The first of them; each is a port of this machine that takes connections and says nothing.
const SILENT_PORT: u16 = 21_000;

/// Bytes that a large body announces and sends.
const LARGE_BYTES: usize = 8 * 1024 * 1024;

/// Between two bytes of a sender that is slow on purpose.
const SLOW: Duration = Duration::from_millis(500);

/// One kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flood {
    /// Deposits with wrong signatures: each costs a verification.
    BadSignatures,
    /// Deposits in the names of servers whose keys would have to be fetched, and that never answer.
    UnknownOrigins,
    /// Well-signed deposits of one server, as fast as they are answered.
    OneSender,
    /// Requests whose heads never end.
    SlowHeads,
    /// Requests whose bodies come byte by byte.
    SlowBodies,
    /// Large bodies without a signature.
    LargeBodies,
    /// Connections that are opened and dropped.
    Connections,
}

/// A flood that runs.
pub(crate) struct Running {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    attempts: Arc<AtomicU64>,
}

impl Running {
    /// Ends it; how many requests or connections it made.
    pub(crate) async fn stop(mut self) -> u64 {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.attempts.load(Ordering::Relaxed)
    }
}

impl Flood {
    pub(crate) const ALL: [Self; 7] = [
        Self::BadSignatures,
        Self::UnknownOrigins,
        Self::OneSender,
        Self::SlowHeads,
        Self::SlowBodies,
        Self::LargeBodies,
        Self::Connections,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BadSignatures => "bad signatures",
            Self::UnknownOrigins => "unknown origins",
            Self::OneSender => "one eager sender",
            Self::SlowHeads => "slow heads",
            Self::SlowBodies => "slow bodies",
            Self::LargeBodies => "large bodies",
            Self::Connections => "connections",
        }
    }

    /// What the relay is configured with beside its defaults.
    pub(crate) fn config(self) -> anyhow::Result<toml::Table> {
        // No name leads to a resolver; the silent servers are addresses of this machine, which a relay on the
        // internet would not call at all.
        let federation = r#"federation = { dns = "off", allow_networks = ["127.0.0.0/8"] }"#;
        Ok(toml::from_str(federation)?)
    }

    /// Lets it begin.
    pub(crate) async fn start(self, relay: &RelayProcess) -> anyhow::Result<Running> {
        let mut running = Running {
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
            attempts: Arc::default(),
        };
        if self == Self::UnknownOrigins {
            listen_in_silence(&mut running).await?;
        }
        let stranger = Arc::new(Origin::new(Ipv4Addr::new(203, 0, 113, 7)));
        for number in 0..self.connections() {
            let part = Part {
                flood: self,
                number,
                address: relay.address,
                relay: relay.server_name.clone(),
                stranger: stranger.clone(),
                recipient: Origin::new(Ipv4Addr::LOCALHOST).name,
                attempts: running.attempts.clone(),
            };
            let stop = running.stop.clone();
            running.tasks.spawn(async move {
                stop.run_until_cancelled(part.go_on()).await;
            });
        }
        Ok(running)
    }

    fn connections(self) -> usize {
        match self {
            Self::SlowHeads | Self::SlowBodies => HELD_CONNECTIONS,
            Self::LargeBodies => BUSY_CONNECTIONS / 2,
            _ => BUSY_CONNECTIONS,
        }
    }
}

/// One connection of a flood.
struct Part {
    flood: Flood,
    number: usize,
    address: SocketAddr,
    relay: ServerName,
    stranger: Arc<Origin>,
    recipient: ServerName,
    attempts: Arc<AtomicU64>,
}

impl Part {
    /// Again and again: a relay may close a connection, and then there is another.
    async fn go_on(&self) {
        loop {
            let ended = match self.flood {
                Flood::SlowHeads => self.drip(b"PUT /_matrix/federation/v1/send_relay/1/").await,
                Flood::SlowBodies => self.drip(&self.slow_body_head()).await,
                Flood::LargeBodies => self.send_large().await,
                Flood::Connections => self.connect().await,
                _ => self.ask().await,
            };
            if ended.is_err() {
                // Refused connections would otherwise make a loop that only burns this machine's time.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    async fn ask(&self) -> anyhow::Result<()> {
        let mut connection = Connection::open(self.address).await?;
        loop {
            let request = match self.flood {
                Flood::BadSignatures => self.stranger.forged_deposit(&self.relay, &self.recipient),
                Flood::UnknownOrigins => {
                    let port =
                        usize::from(SILENT_PORT) + rand::random::<u16>() as usize % SILENT_SERVERS;
                    let name: ServerName = format!("127.0.0.1:{port}").parse()?;
                    self.stranger.deposit_in_the_name_of(&name, &self.relay, &self.recipient)
                }
                _ => self.stranger.deposit(&self.relay, &self.recipient),
            };
            self.count();
            connection.exchange(request).await?;
        }
    }

    fn slow_body_head(&self) -> Vec<u8> {
        let (name, recipient) = (&self.stranger.name, &self.recipient);
        format!(
            "PUT /_matrix/federation/v1/send_relay/{}/@r:{recipient} HTTP/1.1\r\nhost: r\r\nx-forwarded-for: 203.0.113.7\r\n\
             authorization: X-Matrix origin=\"{name}\",key=\"ed25519:a\",sig=\"AAAA\"\r\ncontent-length: 100000\r\n\r\n{{",
            self.number
        )
        .into_bytes()
    }

    async fn drip(&self, start: &[u8]) -> anyhow::Result<()> {
        let mut tcp = TcpStream::connect(self.address).await?;
        self.count();
        tcp.write_all(start).await?;
        loop {
            tokio::time::sleep(SLOW).await;
            tcp.write_all(b" ").await?;
        }
    }

    async fn send_large(&self) -> anyhow::Result<()> {
        let mut connection = Connection::open(self.address).await?;
        let body = Bytes::from(vec![b' '; LARGE_BYTES]);
        loop {
            let honest = self.stranger.forged_deposit(&self.relay, &self.recipient);
            let (head, _) = honest.into_parts();
            self.count();
            let request = http::Request::from_parts(head, Full::new(body.clone()));
            connection.exchange(request).await?;
        }
    }

    async fn connect(&self) -> anyhow::Result<()> {
        let tcp = TcpStream::connect(self.address).await?;
        self.count();
        // Reset and not closed softly: no port of this machine waits for stray packets afterwards.
        #[expect(deprecated, reason = "with zero seconds it does not block")]
        tcp.set_linger(Some(Duration::ZERO))?;
        Ok(())
    }

    fn count(&self) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
    }
}

/// Servers that take a connection and say nothing on it.
async fn listen_in_silence(running: &mut Running) -> anyhow::Result<()> {
    for number in 0..SILENT_SERVERS as u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, SILENT_PORT + number)).await?;
        let stop = running.stop.clone();
        running.tasks.spawn(async move {
            let mut silent = Vec::new();
            let take = async {
                while let Ok((tcp, _)) = listener.accept().await {
                    silent.push(tcp);
                }
            };
            stop.run_until_cancelled(take).await;
        });
    }
    Ok(())
}
