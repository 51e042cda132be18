//! Drives one connection: HTTP on a stream, until it is done, idle for too long, or shut down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use http::{HeaderMap, Request};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::answer::{Unwritten, WatchedBody};
use super::stall::{TimedBody, TimedWriter};
use super::{Connection, ServeLimits, TrustedProxies, Via};
use crate::executor::{OwnedExecutor, TaskOwner};

/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 64;
/// Bytes of request bodies that a peer may send ahead on an HTTP/2 connection, of one request or of all: what a
/// connection can make us hold before anybody has asked for a body. A line of 200 ms still carries 1.3 MB/s.
const WINDOW_BYTES: u32 = 256 * 1024;
/// hyper accepts no smaller head buffer.
const HEAD_BYTES_LEAST: usize = 8 * 1024;

/// What all connections of a listener share.
pub(super) struct Driver {
    http: auto::Builder<OwnedExecutor>,
    _tasks: TaskOwner,
    router: axum::Router,
    pub(super) limits: ServeLimits,
    proxies: TrustedProxies,
    shutdown: CancellationToken,
}

impl Driver {
    pub(super) fn new(
        router: axum::Router,
        limits: ServeLimits,
        proxies: TrustedProxies,
        shutdown: CancellationToken,
    ) -> Self {
        let head_bytes_max = limits.head_bytes_max.max(HEAD_BYTES_LEAST);
        let tasks = TaskOwner::new();
        let mut http = auto::Builder::new(tasks.executor());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head_timeout)
            .max_buf_size(head_bytes_max);
        http.http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(limits.head_timeout)
            .keep_alive_timeout(limits.head_timeout)
            .max_concurrent_streams(STREAMS_MAX)
            .initial_connection_window_size(WINDOW_BYTES)
            .initial_stream_window_size(WINDOW_BYTES)
            .max_header_list_size(u32::try_from(head_bytes_max).unwrap_or(u32::MAX));
        Self { http, _tasks: tasks, router, limits, proxies, shutdown }
    }

    /// Who calls on a connection from `peer` with a request with these headers.
    fn connection(&self, peer: SocketAddr, headers: &HeaderMap) -> Connection {
        let via = if self.proxies.contain(peer.ip()) { Via::TrustedProxy } else { Via::Stranger };
        Connection { peer, client: self.proxies.client(peer.ip(), headers), via }
    }
}

/// What a connection is doing. A request is under way until its answer is handed over whole.
#[derive(Default)]
struct Activity {
    begun: AtomicU64,
    under_way: AtomicUsize,
}

pub(super) struct UnderWay(Arc<Activity>);

impl UnderWay {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.begun.fetch_add(1, Ordering::Relaxed);
        activity.under_way.fetch_add(1, Ordering::Relaxed);
        Self(activity.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves requests on `stream` until it ends.
pub(super) async fn drive<S>(driver: Arc<Driver>, stream: S, peer: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let activity = Arc::new(Activity::default());
    let unwritten = Unwritten::default();
    let service = service_fn(|request: Request<Incoming>| {
        let under_way = UnderWay::begin(&activity);
        let mut request = request.map(TimedBody::new);
        let connection = driver.connection(peer, request.headers());
        request.extensions_mut().insert(connection);
        let answer = driver.router.clone().oneshot(request);
        let unwritten = unwritten.clone();
        async move {
            let answer = answer.await;
            answer.map(|answer| answer.map(|body| WatchedBody::new(body, unwritten, under_way)))
        }
    });
    let io = TokioIo::new(TimedWriter::new(stream));
    let mut served = std::pin::pin!(driver.http.serve_connection_with_upgrades(io, service));
    let mut look = interval(driver.limits.head_timeout);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look.tick().await;
    let mut begun_before = 0;
    let mut ending = false;
    loop {
        tokio::select! {
            done = served.as_mut() => {
                if let Err(error) = done {
                    tracing::debug!(%peer, %error, "connection broke");
                }
                return;
            }
            () = driver.shutdown.cancelled(), if !ending => {
                ending = true;
                served.as_mut().graceful_shutdown();
            }
            _ = look.tick() => {
                if unwritten.is_stuck() {
                    tracing::debug!(%peer, "connection cut: an answer is not taken");
                    return;
                }
                let begun = activity.begun.load(Ordering::Relaxed);
                // hyper times heads itself, but waits without limit for the bytes that tell the protocol version, and
                // keeps idle HTTP/2 connections.
                let is_idle = begun == begun_before && activity.under_way.load(Ordering::Relaxed) == 0;
                begun_before = begun;
                if is_idle && ending && unwritten.is_empty() {
                    // With HTTP/2 a soft end waits for the peer's acknowledgement, which may never come.
                    tracing::debug!(%peer, "connection cut: it was asked to end and does not");
                    return;
                }
                if is_idle && !ending {
                    ending = true;
                    served.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    const ANSWER_BYTES: usize = 1 << 20;

    fn driver() -> Arc<Driver> {
        let router = Router::new().route("/", get(async || "x".repeat(ANSWER_BYTES)));
        let proxies = TrustedProxies::default();
        Arc::new(Driver::new(router, ServeLimits::default(), proxies, CancellationToken::new()))
    }

    fn peer() -> SocketAddr {
        ([127, 0, 0, 1], 1).into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_an_answer_byte_by_byte_is_cut() {
        let (near, mut far) = duplex(1024);
        let driving = tokio::spawn(drive(driver(), near, peer()));
        far.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let begun = Instant::now();
        let mut byte = [0];
        while far.read(&mut byte).await.is_ok_and(|read| read > 0) && !driving.is_finished() {
            sleep(Duration::from_secs(50)).await;
        }
        driving.await.unwrap();
        assert!(begun.elapsed() < Duration::from_mins(10), "{:?}", begun.elapsed());
    }

    /// Speaks just enough HTTP/2 to keep a connection: answers keep-alive pings, and neither asks nor ends.
    async fn answer_keep_alive_pings(far: &mut DuplexStream) -> io::Result<()> {
        const PING: u8 = 6;
        // What h2 writes into pings that ask whether the peer is there; its others ask for a soft end.
        const KEEP_ALIVE: [u8; 8] = [0x3b, 0x7c, 0xdb, 0x7a, 0x0b, 0x87, 0x16, 0xb4];
        far.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
        loop {
            let mut head = [0; 9];
            far.read_exact(&mut head).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            far.read_exact(&mut payload).await?;
            if head[3] == PING && payload == KEEP_ALIVE {
                head[4] = 1;
                far.write_all(&[head.as_slice(), &payload].concat()).await?;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_only_answers_pings_is_cut() {
        let (near, mut far) = duplex(64 * 1024);
        let driving = tokio::spawn(drive(driver(), near, peer()));
        let begun = Instant::now();
        let _ = timeout(Duration::from_mins(10), answer_keep_alive_pings(&mut far)).await;
        driving.await.unwrap();
        assert!(begun.elapsed() < Duration::from_mins(3), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_peer_gets_its_whole_answer() {
        let (near, mut far) = duplex(64 * 1024);
        let driving = tokio::spawn(drive(driver(), near, peer()));
        far.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut taken = 0;
        let mut piece = vec![0; 64 * 1024];
        loop {
            let read = far.read(&mut piece).await.unwrap();
            if read == 0 {
                break;
            }
            taken += read;
            sleep(Duration::from_secs(10)).await;
        }
        driving.await.unwrap();
        assert!(taken > ANSWER_BYTES);
    }
}
