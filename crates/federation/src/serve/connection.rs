//! Drives one connection: HTTP on a stream, until it is done, idle for too long, or shut down.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use http::Request;
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
use super::{Connection, ServeLimits};
use crate::executor::{OwnedExecutor, TaskOwner};

/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 64;
/// hyper accepts no smaller head buffer.
const HEAD_BYTES_LEAST: usize = 8 * 1024;

/// What all connections of a listener share.
pub(super) struct Driver {
    http: auto::Builder<OwnedExecutor>,
    _tasks: TaskOwner,
    router: axum::Router,
    pub(super) limits: ServeLimits,
    shutdown: CancellationToken,
}

impl Driver {
    pub(super) fn new(
        router: axum::Router,
        limits: ServeLimits,
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
            .max_header_list_size(u32::try_from(head_bytes_max).unwrap_or(u32::MAX));
        Self { http, _tasks: tasks, router, limits, shutdown }
    }
}

/// What a connection is doing.
#[derive(Default)]
struct Activity {
    begun: AtomicU64,
    under_way: AtomicUsize,
}

struct UnderWay(Arc<Activity>);

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
pub(super) async fn drive<S>(driver: Arc<Driver>, stream: S, connection: Connection)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let activity = Arc::new(Activity::default());
    let unwritten = Unwritten::default();
    let service = service_fn(|request: Request<Incoming>| {
        let under_way = UnderWay::begin(&activity);
        let mut request = request.map(TimedBody::new);
        request.extensions_mut().insert(connection);
        let answer = driver.router.clone().oneshot(request);
        let unwritten = unwritten.clone();
        async move {
            let answer = answer.await;
            drop(under_way);
            answer.map(|answer| answer.map(|body| WatchedBody::new(body, unwritten)))
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
                    tracing::debug!(peer = %connection.peer, %error, "connection broke");
                }
                return;
            }
            () = driver.shutdown.cancelled(), if !ending => {
                ending = true;
                served.as_mut().graceful_shutdown();
            }
            _ = look.tick() => {
                if unwritten.is_stuck() {
                    tracing::debug!(peer = %connection.peer, "connection cut: an answer is not taken");
                    return;
                }
                let begun = activity.begun.load(Ordering::Relaxed);
                // hyper times heads itself, but waits without limit for the bytes that tell the protocol version, and
                // keeps idle HTTP/2 connections.
                if !ending && begun == begun_before && activity.under_way.load(Ordering::Relaxed) == 0 {
                    ending = true;
                    served.as_mut().graceful_shutdown();
                }
                begun_before = begun;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::{Instant, sleep};

    use super::*;

    const ANSWER_BYTES: usize = 1 << 20;

    fn driver() -> Arc<Driver> {
        let router = Router::new().route("/", get(async || "x".repeat(ANSWER_BYTES)));
        Arc::new(Driver::new(router, ServeLimits::default(), CancellationToken::new()))
    }

    fn connection() -> Connection {
        Connection { peer: ([127, 0, 0, 1], 1).into() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_an_answer_byte_by_byte_is_cut() {
        let (near, mut far) = duplex(1024);
        let driving = tokio::spawn(drive(driver(), near, connection()));
        far.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let begun = Instant::now();
        let mut byte = [0];
        while far.read(&mut byte).await.is_ok_and(|read| read > 0) && !driving.is_finished() {
            sleep(Duration::from_secs(50)).await;
        }
        driving.await.unwrap();
        assert!(begun.elapsed() < Duration::from_mins(10), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_peer_gets_its_whole_answer() {
        let (near, mut far) = duplex(64 * 1024);
        let driving = tokio::spawn(drive(driver(), near, connection()));
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
