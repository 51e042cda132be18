//! The own relay record: signed and kept before anybody sees it, so that no two have one version, and what of it is
//! published.

mod file;
pub(crate) mod publish;
mod rule;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use restante_federation::{Identity, Peer};
use restante_federation_proto::Timestamp;
use restante_relay_api::RelayRecord;
use restante_sqlite::rusqlite::{self, Connection};
use restante_sqlite::{Database, StoreError};
use tokio::sync::watch;

use crate::store;
pub(crate) use file::ADVICE as FILE_ADVICE;
pub use rule::is_private as is_private_way;
use rule::{Before, SignedWith};

/// The own record. Clones share it.
#[derive(Clone)]
pub(crate) struct OwnRecord {
    shared: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    database: Database,
    published: watch::Sender<Published>,
    file: Option<PathBuf>,
    file_problem: watch::Sender<Option<String>>,
}

/// What everybody may see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Published {
    relays: Vec<Peer>,
    record: Option<Bytes>,
}

impl OwnRecord {
    /// Nothing is published yet. `file` is where a web server finds what is.
    pub(crate) fn new(identity: Identity, database: Database, file: Option<PathBuf>) -> Self {
        let (published, file_problem) = (watch::Sender::default(), watch::Sender::default());
        Self { shared: Arc::new(Inner { identity, database, published, file, file_problem }) }
    }

    /// The record that names `relays`, in their order; durable on return. It is of a later version than `above`, which
    /// somebody holds who knows a newer one than we do: after a restore from an old backup.
    pub(crate) async fn naming(
        &self,
        relays: &[Peer],
        above: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Bytes, StoreError> {
        let (identity, named) = (self.shared.identity.clone(), relays.to_owned());
        let made = self
            .shared
            .database
            .write(move |connection| make(connection, &identity, &named, above, now));
        let record = made.await?;
        self.shared.published.send_if_modified(|published| {
            let is_newer = published.relays == relays
                && published.record.as_ref().is_some_and(|published| *published != record);
            if is_newer {
                published.record = Some(record.clone());
            }
            is_newer
        });
        Ok(record)
    }

    /// What is published, if anything is.
    pub(crate) fn published(&self) -> Option<Bytes> {
        self.shared.published.borrow().record.clone()
    }

    /// The file that is written for a web server, and why it can't be written now.
    pub(crate) fn file(&self) -> Option<(PathBuf, Option<String>)> {
        let problem = self.shared.file_problem.borrow().clone();
        self.shared.file.clone().map(|file| (file, problem))
    }

    /// Publishes the record that names `relays`. A server that never had a relay publishes none.
    async fn publish(&self, relays: Vec<Peer>, now: Timestamp) -> Result<(), StoreError> {
        let is_known = self
            .shared
            .database
            .read(|connection| store::own_record::load(connection).map(|kept| kept.is_some()));
        let record = if relays.is_empty() && !is_known.await? {
            None
        } else {
            Some(self.naming(&relays, None, now).await?)
        };
        let published = Published { relays, record };
        self.shared.published.send_if_modified(|before| {
            let is_other = *before != published;
            *before = published;
            is_other
        });
        Ok(())
    }
}

fn make(
    connection: &Connection,
    identity: &Identity,
    relays: &[Peer],
    above: Option<Timestamp>,
    now: Timestamp,
) -> rusqlite::Result<Bytes> {
    let kept = store::own_record::load(connection)?;
    let record = kept.as_ref().and_then(|json| {
        let record = serde_json::from_slice::<RelayRecord>(json).ok()?;
        let is_same = record.signed(&identity.key) == *json;
        Some((record, if is_same { SignedWith::PresentKey } else { SignedWith::EarlierKey }))
    });
    let before = Before { record, above };
    let json =
        Bytes::from(rule::record(&identity.server_name, relays, before, now).signed(&identity.key));
    if kept.is_none_or(|kept| kept != json) {
        store::own_record::keep(connection, &json)?;
    }
    Ok(json)
}

#[cfg(test)]
mod tests;
