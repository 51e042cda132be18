//! A slow line in front of the relay: so many bits a second each way, shared by all connections, and so long there and back.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// Bytes that travel as one: a packet of an ordinary network.
const PACKET_BYTES: usize = 1400;

/// Packets under way on one connection before its sender has to wait: more than are under way on any line here.
const UNDER_WAY_MAX: usize = 1024;

/// What a line is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Bytes a second, each way; none for as fast as it goes.
    pub(crate) bytes_per_second: Option<u32>,
    /// There and back.
    pub(crate) round_trip: Duration,
}

/// A line that leads to an address; closed when dropped.
pub(crate) struct Line {
    pub(crate) entrance: SocketAddr,
    ways: Arc<[Way; 2]>,
    carrier: JoinHandle<()>,
}

/// One direction.
#[derive(Debug)]
struct Way {
    shape: Shape,
    /// When it has carried what it was given so far.
    free_at: Mutex<Instant>,
    carried: AtomicU64,
}

impl Line {
    /// A line of that shape to `target`.
    pub(crate) async fn to(target: SocketAddr, shape: Shape) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("cannot listen")?;
        let entrance = listener.local_addr()?;
        let ways = Arc::new([Way::new(shape), Way::new(shape)]);
        let carrier = tokio::spawn(carry_all(listener, target, ways.clone()));
        Ok(Self { entrance, ways, carrier })
    }

    /// Bytes that went to the target, and from it.
    pub(crate) fn carried(&self) -> [u64; 2] {
        [0, 1].map(|way| self.ways[way].carried.load(Ordering::Relaxed))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.carrier.abort();
    }
}

impl Way {
    fn new(shape: Shape) -> Self {
        Self { shape, free_at: Mutex::new(Instant::now()), carried: AtomicU64::new(0) }
    }

    /// When a packet that is given now has left, after all before it.
    fn leaves_at(&self, bytes: usize) -> Instant {
        self.carried.fetch_add(bytes as u64, Ordering::Relaxed);
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let takes =
            self.shape.bytes_per_second.map(|rate| Duration::from_secs(bytes as u64) / rate);
        *free_at = (*free_at).max(Instant::now()) + takes.unwrap_or_default();
        *free_at
    }
}

async fn carry_all(listener: TcpListener, target: SocketAddr, ways: Arc<[Way; 2]>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((caller, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        connections.spawn(carry(caller, target, ways.clone()));
    }
}

async fn carry(caller: TcpStream, target: SocketAddr, ways: Arc<[Way; 2]>) {
    let Ok(callee) = TcpStream::connect(target).await else { return };
    let _ = (caller.set_nodelay(true), callee.set_nodelay(true));
    let (from_caller, to_caller) = caller.into_split();
    let (from_callee, to_callee) = callee.into_split();
    tokio::join!(
        travel(from_caller, to_callee, &ways[0]),
        travel(from_callee, to_caller, &ways[1])
    );
}

/// Carries one direction of one connection to its end.
async fn travel(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, way: &Way) {
    let (given, mut arriving) = mpsc::channel::<(Instant, Bytes)>(UNDER_WAY_MAX);
    let giving = async move {
        let mut packet = vec![0; PACKET_BYTES];
        while let Ok(length @ 1..) = from.read(&mut packet).await {
            let left_at = way.leaves_at(length);
            let arrives_at = left_at + way.shape.round_trip / 2;
            if given.send((arrives_at, Bytes::copy_from_slice(&packet[..length]))).await.is_err() {
                return;
            }
            // What the line can't take yet waits at its sender.
            sleep_until(left_at).await;
        }
    };
    let taking = async move {
        while let Some((at, packet)) = arriving.recv().await {
            sleep_until(at).await;
            if to.write_all(&packet).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(giving, taking);
}
