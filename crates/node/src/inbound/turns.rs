//! Whose turn it is to have a transaction in memory.
//!
//! A transaction begins as a small one, and needs a place among the few large ones only when so much of it has arrived:
//! what is merely announced holds nobody up. From then on it must keep up a pace, and no caller has more than a few.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body as AxumBody, HttpBody as _};
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt;
use restante_federation::{BodyError, Caller};
use restante_federation_proto::{ErrorCode, MatrixError};
use restante_relay_api::limits::BODY_BYTES_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

/// Transactions that are held in memory at once, 16 MiB each at most; further ones wait for their turn.
pub(super) const LARGE_AT_ONCE: usize = 32;

/// Of these, those of one caller. A server sends one after the other.
pub(super) const LARGE_OF_ONE_CALLER: usize = 4;

/// Bytes of a body up to which a transaction counts as small; most are.
pub(super) const SMALL_BYTES: usize = 64 * 1024;

/// Small transactions at once, 128 MiB in all. So many that strangers who are slow, or who make the homeserver look for
/// keys far away, do not keep everybody out.
const SMALL_AT_ONCE: usize = 2048;

/// How long a transaction may wait for its turn: less than its sender waits for the answer.
const TURN_WAIT: Duration = Duration::from_secs(30);

/// How long one transaction's body may take to arrive: Synapse gives its own requests 60 s.
const BODY_WAIT: Duration = Duration::from_secs(60);

/// What a large body must keep up, in bytes each second: the largest that homeservers send then arrive in time.
const LARGE_PACE: u32 = 64 * 1024;

/// How far a large body may fall behind that pace.
const LARGE_SLACK: Duration = Duration::from_secs(10);

/// When to try again for whom there was no turn.
const BUSY_RETRY: Duration = Duration::from_secs(10);

/// The turns. Clones share them.
#[derive(Clone)]
pub(super) struct Turns {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    /// Large transactions of each caller.
    callers: Arc<Mutex<HashMap<Caller, usize>>>,
}

/// A transaction's turn, until it is dropped.
pub(super) enum Turn {
    Small { _place: OwnedSemaphorePermit },
    Large { _place: OwnedSemaphorePermit, _of_caller: OfCaller },
}

/// One of a caller's large transactions.
pub(super) struct OfCaller {
    turns: Turns,
    caller: Option<Caller>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            small: Arc::new(Semaphore::new(SMALL_AT_ONCE)),
            large: Arc::new(Semaphore::new(LARGE_AT_ONCE)),
            callers: Arc::default(),
        }
    }

    /// Reads a whole transaction, which keeps its turn until [`Turn`] is dropped.
    pub(super) async fn read(
        &self,
        mut body: AxumBody,
        caller: Option<Caller>,
    ) -> Result<(Bytes, Turn), MatrixError> {
        if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
            return Err(refused(&BodyError::TooLarge { max: BODY_BYTES_MAX }));
        }
        let mut turn = Turn::Small { _place: place(&self.small).await? };
        let begun = Instant::now();
        let (mut whole, mut due) = (BytesMut::new(), begun + BODY_WAIT);
        let mut large_since = None;
        loop {
            let frame = timeout_at(due, body.frame()).await.map_err(|_| late())?;
            let Some(frame) = frame else { return Ok((whole.freeze(), turn)) };
            let frame = frame.map_err(|error| refused(&BodyError::Broken(error.into())))?;
            // Frames that are no data are trailers, which nothing here uses.
            let Ok(data) = frame.into_data() else { continue };
            let length = whole.len() + data.len();
            if length > BODY_BYTES_MAX {
                return Err(refused(&BodyError::TooLarge { max: BODY_BYTES_MAX }));
            }
            if length > SMALL_BYTES {
                if large_since.is_none() {
                    turn = self.large(caller).await?;
                }
                let since = *large_since.get_or_insert_with(Instant::now);
                let at_pace = Duration::from_secs(1).mul_f64(length as f64 / f64::from(LARGE_PACE));
                due = (since + LARGE_SLACK + at_pace).min(since + BODY_WAIT);
            }
            whole.extend_from_slice(&data);
        }
    }

    async fn large(&self, caller: Option<Caller>) -> Result<Turn, MatrixError> {
        let _of_caller = self.of_caller(caller)?;
        Ok(Turn::Large { _place: place(&self.large).await?, _of_caller })
    }

    fn of_caller(&self, caller: Option<Caller>) -> Result<OfCaller, MatrixError> {
        if let Some(caller) = caller {
            let mut callers = self.callers();
            let count = callers.entry(caller).or_default();
            if *count >= LARGE_OF_ONE_CALLER {
                return Err(busy());
            }
            *count += 1;
        }
        Ok(OfCaller { turns: self.clone(), caller })
    }

    fn callers(&self) -> MutexGuard<'_, HashMap<Caller, usize>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OfCaller {
    fn drop(&mut self) {
        let Some(caller) = self.caller else { return };
        let mut callers = self.turns.callers();
        if let Some(count) = callers.get_mut(&caller) {
            *count -= 1;
            if *count == 0 {
                callers.remove(&caller);
            }
        }
    }
}

async fn place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, MatrixError> {
    match timeout(TURN_WAIT, places.clone().acquire_owned()).await {
        Ok(Ok(place)) => Ok(place),
        Ok(Err(_)) | Err(_) => Err(busy()),
    }
}

fn busy() -> MatrixError {
    let text = "The node is busy with other transactions.";
    MatrixError::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::LimitExceeded, text)
        .retry_after(BUSY_RETRY)
}

fn late() -> MatrixError {
    let text = "The body did not arrive in time.";
    MatrixError::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::Unknown, text)
}

fn refused(error: &BodyError) -> MatrixError {
    match error {
        BodyError::TooLarge { .. } => {
            MatrixError::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::TooLarge, error.to_string())
        }
        BodyError::Broken(_) => {
            MatrixError::new(StatusCode::BAD_REQUEST, ErrorCode::NotJson, error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use std::net::IpAddr;

    use super::*;

    type Piece = Result<Bytes, std::io::Error>;

    fn caller(address: &str) -> Option<Caller> {
        Some(address.parse::<IpAddr>().unwrap().into())
    }

    /// A large body, of which the last byte comes never.
    fn unfinished() -> AxumBody {
        let begun = stream::iter([Piece::Ok(vec![b' '; SMALL_BYTES + 1].into())]);
        AxumBody::from_stream(futures_util::StreamExt::chain(begun, stream::pending()))
    }

    fn large() -> AxumBody {
        AxumBody::from(vec![b' '; SMALL_BYTES + 1])
    }

    #[tokio::test(start_paused = true)]
    async fn one_callers_large_bodies_leave_turns_to_others() {
        let turns = Turns::new();
        let hostile = caller("192.0.2.7");
        let slow = (0..LARGE_AT_ONCE).map(|_| turns.read(unfinished(), hostile));
        let slow = futures_util::future::join_all(slow);
        tokio::select! {
            biased;
            _ = slow => panic!("the large body waited for the slow ones"),
            read = turns.read(large(), caller("192.0.2.8")) => assert!(read.is_ok()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_body_that_drips_is_cut_soon_and_its_turn_is_free() {
        let turns = Turns::new();
        let dripping = stream::unfold(SMALL_BYTES, async |bytes| {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Some((Piece::Ok(vec![b' '; bytes].into()), 100))
        });
        let begun = Instant::now();
        let read = turns.read(AxumBody::from_stream(Box::pin(dripping)), caller("2001:db8::1"));
        assert_eq!(read.await.err().unwrap().status, StatusCode::REQUEST_TIMEOUT);
        assert!(begun.elapsed() < LARGE_SLACK * 2);
        assert!(turns.callers().is_empty());
        assert_eq!(turns.large.available_permits(), LARGE_AT_ONCE);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_announced_takes_no_turn_of_the_large_ones() {
        let turns = Turns::new();
        let nothing = || AxumBody::from_stream(stream::pending::<Piece>());
        let slow = (0..LARGE_AT_ONCE).map(|_| turns.read(nothing(), None));
        let slow = futures_util::future::join_all(slow);
        tokio::select! {
            biased;
            _ = slow => panic!("the large body waited for what was announced"),
            read = turns.read(large(), None) => assert!(read.is_ok()),
        }
    }

    #[test]
    fn an_ipv6_subscriber_is_one_caller() {
        assert_eq!(caller("2001:db8:1:2::1"), caller("2001:db8:1:2:ffff::"));
        assert_ne!(caller("2001:db8:1:2::1"), caller("2001:db8:1:3::1"));
        assert_eq!(caller("::ffff:192.0.2.7"), caller("192.0.2.7"));
    }
}
