//! What is heard of other servers' relays on the way: whom we met, and which records came with mail. Whoever hears it
//! does not wait for what becomes of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use restante_federation::BoundedMap;
use restante_federation_proto::{Clock, ServerName, Timestamp};
use restante_relay_api::limits::RECORD_BYTES_MAX;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex as WorkMutex, mpsc};

use super::{Candidate, LearnedFrom};

/// What waits to be looked into; records of 16 KiB each. What finds no room comes again with the next call or mail.
pub(super) const WAITING_MAX: usize = 256;

/// Servers of which is remembered that they were met, or which record they sent.
const REMEMBERED_MAX: usize = 4096;

/// Who was met is mentioned again after this.
const MENTIONED_AGAIN: Duration = Duration::from_secs(600);

/// Something that was heard.
#[derive(Debug)]
pub(super) enum Heard {
    /// This server answered us, or called and was believed.
    Met(ServerName),
    /// This came with mail of the server's.
    Brought(Candidate),
}

/// Where it is told. Clones share it.
#[derive(Clone)]
pub(crate) struct Hearsay {
    shared: Arc<Inner>,
}

struct Inner {
    clock: Arc<dyn Clock>,
    told: mpsc::Sender<Heard>,
    heard: WorkMutex<mpsc::Receiver<Heard>>,
    lately: Mutex<Lately>,
}

struct Lately {
    met: BoundedMap<ServerName, Timestamp>,
    brought: BoundedMap<ServerName, [u8; 32]>,
}

impl Hearsay {
    /// Nothing was heard yet.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let (told, heard) = mpsc::channel(WAITING_MAX);
        let (met, brought) = (BoundedMap::new(REMEMBERED_MAX), BoundedMap::new(REMEMBERED_MAX));
        let lately = Mutex::new(Lately { met, brought });
        Self { shared: Arc::new(Inner { clock, told, heard: WorkMutex::new(heard), lately }) }
    }

    /// `server` answered us, or called and was believed.
    pub(crate) fn met(&self, server: &ServerName) {
        let now = self.shared.clock.now();
        let mut lately = self.lately();
        let before = lately.met.get(server).copied();
        let is_lately = |at: Timestamp| at <= now && now.since(at) < MENTIONED_AGAIN;
        if before.is_some_and(is_lately) {
            return;
        }
        if self.shared.told.try_send(Heard::Met(server.clone())).is_ok() {
            lately.met.insert(server.clone(), now);
        }
    }

    /// This record came with mail that `server` is proven to have sent.
    pub(crate) fn brought(&self, server: &ServerName, record: &Bytes) {
        if record.len() > RECORD_BYTES_MAX {
            return;
        }
        let sha256: [u8; 32] = Sha256::digest(record).into();
        let mut lately = self.lately();
        if lately.brought.get(server) == Some(&sha256) {
            return;
        }
        let candidate =
            Candidate { server: server.clone(), json: record.clone(), from: LearnedFrom::Mail };
        if self.shared.told.try_send(Heard::Brought(candidate)).is_ok() {
            lately.brought.insert(server.clone(), sha256);
        }
    }

    /// The record that mail of `server` brought last may count when it is brought again.
    pub(super) fn forget(&self, server: &ServerName) {
        self.lately().brought.remove(server);
    }

    /// What was heard next; one listener at a time.
    pub(super) async fn next(&self) -> Option<Heard> {
        self.shared.heard.lock().await.recv().await
    }

    fn lately(&self) -> MutexGuard<'_, Lately> {
        self.shared.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
