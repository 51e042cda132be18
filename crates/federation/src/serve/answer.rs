//! Tells which pieces of answers are not yet on their way, so that a peer that does not take them holds no memory for long.
//!
//! Watching the socket is not enough: with HTTP/2 a peer keeps its socket empty and grants no window, and with either
//! version it may take a byte a minute.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::connection::UnderWay;

/// How long one piece of an answer may take. Ours are at most 16 MiB, which takes this at 56 KB/s.
const PIECE_TIME_MAX: Duration = Duration::from_mins(5);

/// The pieces that hyper was given and has not written, in the order in which they were given.
#[derive(Clone, Default)]
pub(super) struct Unwritten(Arc<Mutex<Pieces>>);

#[derive(Default)]
struct Pieces {
    given: u64,
    since: BTreeMap<u64, Instant>,
}

impl Unwritten {
    /// Whether a piece waits for too long.
    pub(super) fn is_stuck(&self) -> bool {
        let oldest = self.pieces().since.first_key_value().map(|(_, since)| *since);
        oldest.is_some_and(|since| since.elapsed() > PIECE_TIME_MAX)
    }

    /// Whether everything that was given is written.
    pub(super) fn is_empty(&self) -> bool {
        self.pieces().since.is_empty()
    }

    /// The same bytes, watched until they are dropped.
    fn watch(&self, bytes: Bytes) -> Bytes {
        let mut pieces = self.pieces();
        pieces.given += 1;
        let number = pieces.given;
        pieces.since.insert(number, Instant::now());
        drop(pieces);
        Bytes::from_owner(Piece { bytes, number, unwritten: self.clone() })
    }

    fn pieces(&self) -> MutexGuard<'_, Pieces> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Piece {
    bytes: Bytes,
    number: u64,
    unwritten: Unwritten,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.unwritten.pieces().since.remove(&self.number);
    }
}

/// An answer's body whose pieces are watched.
pub(super) struct WatchedBody {
    body: axum::body::Body,
    unwritten: Unwritten,
    _under_way: UnderWay,
}

impl WatchedBody {
    pub(super) fn new(body: axum::body::Body, unwritten: Unwritten, under_way: UnderWay) -> Self {
        Self { body, unwritten, _under_way: under_way }
    }
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        frame.map_ok(|frame| frame.map_data(|bytes| self.unwritten.watch(bytes)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
