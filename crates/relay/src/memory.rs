//! Bounds the memory that all requests under way take together, and all answers that are not taken yet.
//!
//! Without this, some hundred strangers who send most of a large body, or ask for large answers and read
//! nothing, would fill the machine before any signature is looked at.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use restante_federation::BoxError;
use restante_federation::Caller;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::callers::CameFrom;

/// Up to here a request or an answer is small, and its room is kept apart: who holds all room for large ones
/// keeps no ordinary transaction out.
const SMALL_BYTES_MAX: usize = 64 * 1024;
/// For the first [`SMALL_BYTES_MAX`] of each: four thousand at once.
const SMALL_ROOM_BYTES: usize = 256 * 1024 * 1024;
/// For what is beyond: eight of the largest bodies at once.
const LARGE_ROOM_BYTES: usize = 128 * 1024 * 1024;
/// What one address may have of the latter, besides any one body or answer: a node asks for the next part of its mail while the last one
/// comes. Else few requests of one who takes his time would keep everybody else's out.
const LARGE_OF_ONE_BYTES: usize = LARGE_ROOM_BYTES / 2;

/// The room that is left.
#[derive(Clone)]
pub(crate) struct Memory {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    /// What each address has of the large room.
    large_of: Arc<Mutex<HashMap<Caller, usize>>>,
}

/// Bounds the mail that is read from the store and not yet counted as an answer: an envelope may be as large as a body, and
/// a caller may ask for it any number of times at once.
#[derive(Debug)]
pub(crate) struct Reading(Semaphore);

/// A turn to read, given back when dropped.
pub(crate) type ReadingTurn<'a> = SemaphorePermit<'a>;

/// Reads at once, each with its answer beside it: twice the largest body. The store has two readers.
const READS_MAX: usize = 4;

impl Reading {
    pub(crate) fn new() -> Self {
        Self(Semaphore::new(READS_MAX))
    }

    /// Waits for a turn, in the order of asking.
    pub(crate) async fn turn(&self) -> ReadingTurn<'_> {
        self.0.acquire().await.expect("nobody closes it")
    }
}

/// No room is left; temporary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the relay is busy with other requests")]
pub(crate) struct NoRoom;

/// What one request or answer has taken; given back when dropped.
pub(crate) struct Share {
    memory: Memory,
    from: CameFrom,
    bytes: usize,
    large: usize,
    held: Vec<OwnedSemaphorePermit>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self::with(SMALL_ROOM_BYTES, LARGE_ROOM_BYTES)
    }

    fn with(small: usize, large: usize) -> Self {
        let (small, large) = (Arc::new(Semaphore::new(small)), Arc::new(Semaphore::new(large)));
        Self { small, large, large_of: Arc::default() }
    }

    /// A share of nothing yet, for what came from there.
    pub(crate) fn share(&self, from: CameFrom) -> Share {
        Share { memory: self.clone(), from, bytes: 0, large: 0, held: Vec::new() }
    }

    /// `answer` to what came from there, counted until it is written or given up.
    pub(crate) fn hold(&self, from: CameFrom, answer: Bytes) -> Result<Bytes, NoRoom> {
        let mut share = self.share(from);
        share.grow(answer.len())?;
        Ok(Bytes::from_owner(Held { answer, _share: share }))
    }

    fn large_of(&self) -> MutexGuard<'_, HashMap<Caller, usize>> {
        self.large_of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Takes `more` bytes.
    pub(crate) fn grow(&mut self, more: usize) -> Result<(), NoRoom> {
        let small = more.min(SMALL_BYTES_MAX.saturating_sub(self.bytes));
        self.take(self.memory.small.clone(), small)?;
        self.take_large(more - small)?;
        self.bytes += more;
        Ok(())
    }

    fn take_large(&mut self, bytes: usize) -> Result<(), NoRoom> {
        if bytes == 0 {
            return Ok(());
        }
        if let CameFrom(Some(caller)) = self.from {
            let mut large_of = self.memory.large_of();
            let taken = large_of.entry(caller).or_default();
            let others = *taken - self.large;
            if others > 0 && *taken + bytes > LARGE_OF_ONE_BYTES {
                return Err(NoRoom);
            }
            *taken += bytes;
            self.large += bytes;
        }
        self.take(self.memory.large.clone(), bytes)
    }

    fn take(&mut self, room: Arc<Semaphore>, bytes: usize) -> Result<(), NoRoom> {
        let bytes = u32::try_from(bytes).map_err(|_| NoRoom)?;
        if bytes == 0 {
            return Ok(());
        }
        let permit = room.try_acquire_many_owned(bytes).map_err(|_| NoRoom)?;
        match self.held.iter_mut().find(|held| Arc::ptr_eq(held.semaphore(), permit.semaphore())) {
            Some(held) => held.merge(permit),
            None => self.held.push(permit),
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let (CameFrom(Some(caller)), 1..) = (self.from, self.large) else { return };
        let mut large_of = self.memory.large_of();
        if let Some(taken) = large_of.get_mut(&caller) {
            *taken = taken.saturating_sub(self.large);
            if *taken == 0 {
                large_of.remove(&caller);
            }
        }
    }
}

struct Held {
    answer: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.answer
    }
}

/// A body that takes room as it comes in; what is only announced takes none.
pub(crate) struct CountedBody<'a, B> {
    pub(crate) body: B,
    pub(crate) share: &'a mut Share,
}

impl<B> Body for CountedBody<'_, B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let bytes = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            _ => 0,
        };
        if let Err(refusal) = self.share.grow(bytes) {
            return Poll::Ready(Some(Err(refusal.into())));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use http_body_util::{BodyExt, Full};

    use super::*;

    /// A place that brings everybody's requests.
    const PROXY: CameFrom = CameFrom(None);

    #[test]
    fn large_ones_are_bounded_and_keep_no_small_one_out() {
        let memory = Memory::with(SMALL_BYTES_MAX * 4, 1000);
        let mut large = memory.share(PROXY);
        large.grow(SMALL_BYTES_MAX).unwrap();
        large.grow(900).unwrap();
        assert_eq!(memory.share(PROXY).grow(SMALL_BYTES_MAX + 101), Err(NoRoom));
        let small = memory.hold(PROXY, vec![0; SMALL_BYTES_MAX].into()).unwrap();
        drop(large);
        assert!(memory.hold(PROXY, vec![0; SMALL_BYTES_MAX + 1000].into()).is_ok());
        drop(small);
        assert_eq!(memory.small.available_permits(), SMALL_BYTES_MAX * 4, "all is given back");
        assert_eq!(memory.large.available_permits(), 1000);
    }

    #[test]
    fn one_address_does_not_take_all_the_room_for_large_ones_unless_it_is_a_proxy() {
        let memory = Memory::new();
        let from = |last| CameFrom(Some(Caller::from(IpAddr::from([192, 0, 2, last]))));
        let largest = || Bytes::from(vec![0; SMALL_BYTES_MAX + LARGE_OF_ONE_BYTES / 2]);
        let held = [(); 2].map(|()| memory.hold(from(1), largest()).unwrap());
        assert_eq!(memory.hold(from(1), largest()), Err(NoRoom));
        assert!(memory.hold(from(1), vec![0; SMALL_BYTES_MAX].into()).is_ok());
        assert!(memory.hold(from(2), largest()).is_ok());
        assert!(memory.hold(PROXY, largest()).is_ok());
        drop(held);
        // One of any size passes alone.
        let larger = vec![0; SMALL_BYTES_MAX + LARGE_OF_ONE_BYTES + 1];
        assert!(memory.hold(from(1), larger.into()).is_ok());
        assert!(memory.large_of().is_empty(), "all is given back");
    }

    #[tokio::test]
    async fn a_counted_body_comes_whole_and_takes_room_as_it_comes() {
        let memory = Memory::with(7, 0);
        let mut share = memory.share(PROXY);
        let body = Full::new(Bytes::from_static(b"12345"));
        let mut counted = CountedBody { body, share: &mut share };
        assert!(!counted.is_end_stream());
        assert_eq!(counted.size_hint().exact(), Some(5));
        assert_eq!(memory.small.available_permits(), 7, "nothing is taken beforehand");

        let frame = counted.frame().await.unwrap().unwrap();

        assert_eq!(frame.into_data().unwrap(), "12345");
        assert!(counted.is_end_stream());
        assert_eq!(memory.small.available_permits(), 2);
        let body = Full::new(Bytes::from_static(b"123"));
        let error = CountedBody { body, share: &mut share }.frame().await.unwrap().unwrap_err();
        assert!(error.is::<NoRoom>());
    }

    #[test]
    fn an_answer_takes_its_room_until_its_last_piece_is_gone() {
        let memory = Memory::with(100, 100);
        let mut answer = memory.hold(PROXY, vec![0; 100].into()).unwrap();
        let piece = answer.split_to(1);
        drop(answer);
        assert!(memory.hold(PROXY, vec![0].into()).is_err());
        drop(piece);
        assert!(memory.hold(PROXY, vec![0].into()).is_ok());
    }
}
