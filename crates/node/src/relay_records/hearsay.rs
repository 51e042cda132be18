//! What is heard of other servers' relays on the way: whom we met, and which records came with mail. Whoever hears it
//! does not wait for what becomes of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use restante_federation::BoundedMap;
use restante_federation_proto::{Clock, ServerName, Timestamp};
use restante_relay_api::limits::RECORD_BYTES_MAX;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex as WorkMutex, mpsc};

use super::{Candidate, LearnedFrom};

/// Servers that were met, and records that mail brought, of 16 KiB each, that wait to be looked into. What finds no room
/// comes again with the next call or mail.
pub(super) const WAITING_MAX: usize = 256;

/// Records of one server that wait: a relay may have put one of its own making beside the mail.
pub(super) const WAITING_OF_ONE_MAX: usize = 4;

/// Servers of which is remembered that they were met, or which record they sent.
const REMEMBERED_MAX: usize = 4096;

/// Who was met is mentioned again after this.
const MENTIONED_AGAIN: Duration = Duration::from_secs(600);

/// How a server was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meeting {
    /// It answered a call of ours: our homeserver has to do with it.
    Answered,
    /// It called, and was believed.
    Called,
}

/// Where it is told. Clones share it.
#[derive(Clone)]
pub(crate) struct Hearsay {
    shared: Arc<Inner>,
}

struct Inner {
    clock: Arc<dyn Clock>,
    met: Queue<(ServerName, Meeting)>,
    brought: Queue<ServerName>,
    lately: Mutex<Lately>,
}

/// Servers of which something was heard. Records have a queue of their own: an answer needs them, and meetings are many.
struct Queue<T> {
    told: mpsc::Sender<T>,
    heard: WorkMutex<mpsc::Receiver<T>>,
}

struct Lately {
    met: BoundedMap<ServerName, (Meeting, Timestamp)>,
    brought: BoundedMap<ServerName, [u8; 32]>,
    /// The records that wait, one for each time that their server is in the queue.
    waiting: BTreeMap<ServerName, Vec<Candidate>>,
}

impl<T> Queue<T> {
    fn new() -> Self {
        let (told, heard) = mpsc::channel(WAITING_MAX);
        Self { told, heard: WorkMutex::new(heard) }
    }

    async fn next(&self) -> Option<T> {
        self.heard.lock().await.recv().await
    }
}

impl Hearsay {
    /// Nothing was heard yet.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let (met, brought) = (BoundedMap::new(REMEMBERED_MAX), BoundedMap::new(REMEMBERED_MAX));
        let lately = Mutex::new(Lately { met, brought, waiting: BTreeMap::new() });
        let inner = Inner { clock, met: Queue::new(), brought: Queue::new(), lately };
        Self { shared: Arc::new(inner) }
    }

    /// `server` was met.
    pub(crate) fn met(&self, server: &ServerName, meeting: Meeting) {
        let now = self.shared.clock.now();
        let mut lately = self.lately();
        let before = lately.met.get(server).copied();
        let is_lately = |at: Timestamp| at <= now && now.since(at) < MENTIONED_AGAIN;
        let says_more = |before: Meeting| (before, meeting) == (Meeting::Called, Meeting::Answered);
        if before.is_some_and(|(before, at)| is_lately(at) && !says_more(before)) {
            return;
        }
        if self.shared.met.told.try_send((server.clone(), meeting)).is_ok() {
            lately.met.insert(server.clone(), (meeting, now));
        }
    }

    /// This record came with mail that `server` is proven to have sent.
    pub(crate) fn brought(&self, server: &ServerName, record: &Bytes) {
        if record.len() > RECORD_BYTES_MAX {
            return;
        }
        let sha256: [u8; 32] = Sha256::digest(record).into();
        let mut lately = self.lately();
        let is_known = lately.brought.get(server) == Some(&sha256);
        // Nobody's mail fills the queue: another record of the same server comes again when this one was looked into.
        let waiting = lately.waiting.get(server).map_or(0, Vec::len);
        if is_known || waiting >= WAITING_OF_ONE_MAX {
            return;
        }
        let candidate =
            Candidate { server: server.clone(), json: record.clone(), from: LearnedFrom::Mail };
        if self.shared.brought.told.try_send(server.clone()).is_ok() {
            lately.waiting.entry(server.clone()).or_default().push(candidate);
            lately.brought.insert(server.clone(), sha256);
        }
    }

    /// The record that mail of `server` brought last may count when it is brought again.
    pub(super) fn forget(&self, server: &ServerName) {
        self.lately().brought.remove(server);
    }

    /// Who was met next; one listener at a time.
    pub(super) async fn next_met(&self) -> Option<(ServerName, Meeting)> {
        self.shared.met.next().await
    }

    /// The record that came next; one listener at a time.
    pub(super) async fn next_brought(&self) -> Option<Candidate> {
        let server = self.shared.brought.next().await?;
        let mut lately = self.lately();
        let mut of_server = lately.waiting.remove(&server).unwrap_or_default();
        let candidate = of_server.pop();
        if !of_server.is_empty() {
            lately.waiting.insert(server, of_server);
        }
        Some(candidate.expect("it waits for as long as its server is in the queue"))
    }

    fn lately(&self) -> MutexGuard<'_, Lately> {
        self.shared.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
