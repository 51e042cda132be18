//! Finding relays that nobody named: the relay records of other servers, by their own signatures.
//!
//! `belief` decides which record counts, `pace` when a server is asked again. What others mention on the way (`hearsay`) is
//! looked into in the background, one server after the other (`meetings`); what a delivery needs now is looked for at all
//! sources at once (`search`).

mod belief;
pub(crate) mod hearsay;
mod meetings;
mod pace;
mod search;
mod sources;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use restante_federation::{BoundedMap, Freshness, KeyLookupError, Peer};
use restante_federation_proto::{ServerName, Timestamp};
use restante_relay_api::{RelayRecord, RelayRecordError};
use restante_sqlite::StoreError;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::background::Background;
use crate::config::RecordsSection;
use crate::metrics::RecordOutcome;
use crate::site::Site;
use crate::store;
use belief::{Belief, belief};
use pace::Looked;
pub(crate) use pace::Need;
use search::Searched;

/// Signatures on a record that are looked at; a server has one or two keys.
const SIGNATURES_MAX: usize = 4;

/// Servers of which is remembered when they were looked for.
const SEARCHED_MAX: usize = 4096;

/// Searches at once; each asks a web site and some relays.
const SEARCHES_MAX: usize = 8;

/// What is known of another server's relays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recorded {
    /// The record, whose signature was good when it was learned.
    pub(crate) record: RelayRecord,
    /// Who gave it.
    pub(crate) learned_from: LearnedFrom,
    /// When.
    pub(crate) learned_at: Timestamp,
}

/// Who gave a record. Its signature makes it count, whoever it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LearnedFrom {
    /// The server's web site.
    WellKnown,
    /// The server's node itself.
    Server,
    /// Mail of the server's that a relay held.
    Mail,
    /// This relay.
    Relay(ServerName),
}

impl fmt::Display for LearnedFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WellKnown => f.write_str("well-known"),
            Self::Server => f.write_str("server"),
            Self::Mail => f.write_str("mail"),
            Self::Relay(relay) => write!(f, "relay {relay}"),
        }
    }
}

impl LearnedFrom {
    /// Reads what [`fmt::Display`] writes.
    pub(crate) fn read(text: &str) -> Option<Self> {
        match text {
            "well-known" => Some(Self::WellKnown),
            "server" => Some(Self::Server),
            "mail" => Some(Self::Mail),
            _ => text.strip_prefix("relay ")?.parse().ok().map(Self::Relay),
        }
    }
}

impl Recorded {
    /// The relays that it names, the one that its server prefers before the others. They are a stranger's word.
    pub(crate) fn relays(&self) -> Vec<Peer> {
        let mut relays: Vec<_> = self.record.relays.iter().collect();
        relays.sort_by_key(|relay| relay.priority);
        let peer = |url: Option<&String>, name: &ServerName| {
            // A relay whose URL can't be read is not where its name leads either.
            let url = url.map(|url| url.parse()).transpose().ok()?;
            Some(Peer::of_stranger(name.clone(), url))
        };
        let peers = relays.iter().filter_map(|one| peer(one.url.as_ref(), &one.server_name));
        let mut known: Vec<Peer> = Vec::new();
        for relay in peers {
            if known.iter().all(|before| before.name != relay.name) {
                known.push(relay);
            }
        }
        known
    }
}

/// A record that somebody gave.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// Of whom.
    pub(crate) server: ServerName,
    /// The record, as it came.
    pub(crate) json: Bytes,
    /// Who gave it.
    pub(crate) from: LearnedFrom,
}

/// Why a candidate changed nothing.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    /// The record is no good, whoever looks at it.
    #[error(transparent)]
    Record(#[from] RelayRecordError),
    /// A record as new is known.
    #[error("a record as new is known")]
    NotNewer,
    /// Nobody vouches for its key now.
    #[error(transparent)]
    Key(#[from] KeyLookupError),
    /// All that is known is needed for mail that waits.
    #[error("there is no room for another record")]
    NoRoom,
    /// The node's database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// It is what is known now.
    Learned,
    /// It changes nothing.
    Not,
    /// The same may count later.
    NotNow,
}

/// Finds relays. Clones share what is known.
#[derive(Clone)]
pub(crate) struct RelayRecords {
    shared: Arc<Inner>,
}

struct Inner {
    site: Site,
    background: Background,
    look_up: bool,
    searched: Mutex<BoundedMap<ServerName, Searched>>,
    met: Mutex<BoundedMap<ServerName, Looked>>,
    places: Semaphore,
}

impl RelayRecords {
    /// Nothing is looked for yet. `background` owns searches that outlive their call.
    pub(crate) fn new(site: Site, settings: &RecordsSection, background: Background) -> Self {
        let inner = Inner {
            site,
            background,
            look_up: settings.look_up,
            searched: Mutex::new(BoundedMap::new(SEARCHED_MAX)),
            met: Mutex::new(BoundedMap::new(SEARCHED_MAX)),
            places: Semaphore::new(SEARCHES_MAX),
        };
        Self { shared: Arc::new(inner) }
    }

    /// Takes a record in, if it counts and that is clear within `time`: whose key it names may answer slowly on purpose.
    async fn take_in_within(&self, candidate: &Candidate, time: Duration) -> Taken {
        timeout(time, self.take_in(candidate)).await.unwrap_or_else(|_| {
            let Candidate { server, from, .. } = candidate;
            tracing::info!(%server, %from, "a relay record changes nothing: its key was not found in time");
            self.shared.site.counted.record(RecordOutcome::Unverified);
            Taken::NotNow
        })
    }

    /// Takes a record in, if it counts.
    async fn take_in(&self, candidate: &Candidate) -> Taken {
        let Candidate { server, from, .. } = candidate;
        let counted = &self.shared.site.counted;
        match self.try_take_in(candidate).await {
            Ok(recorded) => {
                let version = recorded.record.version.as_millis();
                tracing::info!(%server, %from, record.version = version, relays = recorded.record.relays.len(), "learned which relays hold a server's mail");
                counted.record(RecordOutcome::Learned);
                Taken::Learned
            }
            Err(NotTaken::NotNewer) => {
                counted.record(RecordOutcome::NotNewer);
                Taken::Not
            }
            Err(reason) => {
                tracing::info!(%server, %from, %reason, "a relay record changes nothing");
                let is_passing = matches!(reason, NotTaken::Key(_) | NotTaken::Store(_));
                counted.record(match reason {
                    NotTaken::Key(_) => RecordOutcome::Unverified,
                    _ => RecordOutcome::Refused,
                });
                if is_passing { Taken::NotNow } else { Taken::Not }
            }
        }
    }

    async fn try_take_in(&self, candidate: &Candidate) -> Result<Recorded, NotTaken> {
        let Candidate { server, json, from } = candidate;
        let site = &self.shared.site;
        let now = site.clock.now();
        let record = RelayRecord::parse(json, now)?;
        if record.server_name != *server || server == site.server_name() {
            return Err(RelayRecordError::OtherServer.into());
        }
        // Keys may have to be asked for; what changes nothing is not worth that.
        let known = self.known(server).await?.map(|known| known.record.version);
        if belief(known, record.version, now) == Belief::Keep {
            return Err(NotTaken::NotNewer);
        }
        self.verify(candidate, record.version).await?;
        let recorded = Recorded { record, learned_from: from.clone(), learned_at: now };
        let (taken, json) = (recorded.clone(), json.clone());
        let stored = site.database.write(move |connection| {
            let known = store::relay_records::load(connection, &taken.record.server_name)?;
            // Another one may have come meanwhile.
            let known = known.map(|known| known.record.version);
            match belief(known, taken.record.version, now) {
                Belief::Keep => Ok(Err(NotTaken::NotNewer)),
                Belief::Replace if store::relay_records::put(connection, &json, &taken)? => {
                    Ok(Ok(()))
                }
                Belief::Replace => Ok(Err(NotTaken::NoRoom)),
            }
        });
        stored.await??;
        Ok(recorded)
    }

    /// A key that came only with the record is no key: the key ring decides. The record says when it was signed, so that a
    /// retired key signs nothing new.
    async fn verify(&self, candidate: &Candidate, signed_at: Timestamp) -> Result<(), NotTaken> {
        let Candidate { server, json, .. } = candidate;
        let site = &self.shared.site;
        let mut problem = NotTaken::from(RelayRecordError::Signature);
        for key_id in RelayRecord::key_ids(json, server).into_iter().take(SIGNATURES_MAX) {
            match site.keys.key(server, &key_id, Freshness::SignedAt(signed_at)).await {
                Ok(key) => {
                    let now = site.clock.now();
                    match RelayRecord::verify(json, server, (&key_id, &key), now) {
                        Ok(_) => return Ok(()),
                        Err(error) => problem = error.into(),
                    }
                }
                Err(KeyLookupError::NoSuchKey { .. }) => {}
                Err(error) => problem = error.into(),
            }
        }
        Err(problem)
    }

    async fn known(&self, server: &ServerName) -> Result<Option<Recorded>, StoreError> {
        self.shared.site.relays.record_of(server).await
    }
}
