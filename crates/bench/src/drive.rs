//! Sends prepared requests: in a closed loop, each connection as fast as it is answered, or in an open one, at a fixed rate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::numbers::Latencies;
use crate::schedule::Schedule;
use crate::wire::Wire;

/// Requests that were all answered 200.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    pub(crate) latencies: Latencies,
    /// Bytes of the answers' bodies.
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
}

impl Answered {
    /// Answers a second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.count() as f64 / self.took.as_secs_f64()
    }
}

/// Each of `connections` sends its next request when the last one is answered.
pub(crate) async fn closed_loop(
    address: SocketAddr,
    connections: usize,
    requests: &Arc<[Bytes]>,
) -> anyhow::Result<Answered> {
    run(address, connections, requests, Pace::Closed).await
}

/// Requests are sent at `rate` a second as long as one of `connections` is free; their latency counts from when they were
/// due, so that waiting for a connection is part of it.
pub(crate) async fn open_loop(
    address: SocketAddr,
    connections: usize,
    requests: &Arc<[Bytes]>,
    rate: f64,
) -> anyhow::Result<Answered> {
    let (schedule, due) = (Schedule::of(rate), Arc::new(Semaphore::new(0)));
    run(address, connections, requests, Pace::Open(schedule, due)).await
}

#[derive(Clone)]
enum Pace {
    Closed,
    /// The schedule, and a permit for each request that is due.
    Open(Schedule, Arc<Semaphore>),
}

async fn run(
    address: SocketAddr,
    connections: usize,
    requests: &Arc<[Bytes]>,
    pace: Pace,
) -> anyhow::Result<Answered> {
    let mut wires = Vec::new();
    for _ in 0..connections.min(requests.len()) {
        wires.push(Wire::open(address).await?);
    }
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let _pacer = match &pace {
        Pace::Open(schedule, due) => {
            Some(Pacer::start(*schedule, due.clone(), requests.len(), began)?)
        }
        Pace::Closed => None,
    };
    let mut sending = JoinSet::new();
    for wire in wires {
        sending.spawn(send(wire, requests.clone(), next.clone(), pace.clone(), began));
    }
    let mut all = Answered::default();
    while let Some(sent) = sending.join_next().await {
        let sent = sent.context("a connection's task panicked")??;
        all.latencies.append(sent.latencies);
        all.bytes += sent.bytes;
    }
    all.took = began.elapsed();
    Ok(all)
}

/// One connection's part.
async fn send(
    mut wire: Wire,
    requests: Arc<[Bytes]>,
    next: Arc<AtomicUsize>,
    pace: Pace,
    began: Instant,
) -> anyhow::Result<Answered> {
    let mut sent = Answered::default();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let Some(request) = requests.get(number) else { return Ok(sent) };
        let from = match &pace {
            Pace::Closed => Instant::now(),
            Pace::Open(schedule, due) => {
                due.acquire().await.context("nobody closes it")?.forget();
                began + schedule.due(number)
            }
        };
        sent.bytes += wire.ask(request).await?.len() as u64;
        sent.latencies.add(from.elapsed());
    }
}

/// Says when requests are due, from a thread of its own: the runtime's timer counts whole milliseconds, which is more than
/// an answer takes.
struct Pacer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pacer {
    fn start(
        schedule: Schedule,
        due: Arc<Semaphore>,
        count: usize,
        began: Instant,
    ) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let pace = move || {
            for number in 0..count {
                let wait = (began + schedule.due(number)).saturating_duration_since(Instant::now());
                pause(wait);
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                due.add_permits(1);
            }
        };
        let thread = std::thread::Builder::new().name("pacer".into()).spawn(pace)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

#[expect(clippy::disallowed_methods, reason = "what is waited for is the time itself")]
fn pause(wait: Duration) {
    if !wait.is_zero() {
        std::thread::sleep(wait);
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It panics nowhere, and wakes at the next request at the latest.
            let _ = thread.join();
        }
    }
}
