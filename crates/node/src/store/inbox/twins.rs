//! Transactions of one origin under one id with different bodies.

use bytes::Bytes;
use restante_federation_proto::ServerName;
use restante_sqlite::{Database, StoreError};
use rusqlite::params;

use crate::store::seen;

/// Other bodies that are looked at; a sender that adds to what it could not deliver makes one or two.
const TWINS_MAX: u32 = 10;

/// The other bodies of a transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Twins {
    /// Those that wait for delivery, in this order.
    pub(crate) waiting: Vec<Bytes>,
    /// Whether one went to the homeserver.
    pub(crate) is_one_delivered: bool,
    /// Whether this very body went to the homeserver before it came here.
    pub(crate) is_copy: bool,
    /// Fingerprints of the EDUs in those that did, as far as they are known.
    pub(crate) delivered_edus: Vec<u8>,
}

/// The other bodies of the transaction in the row `id`.
pub(crate) async fn twins(
    database: &Database,
    (id, origin, txn_id): (i64, ServerName, String),
) -> Result<Twins, StoreError> {
    database
        .read(move |connection| {
            let key = params![origin.as_str(), txn_id, id, TWINS_MAX];
            let sql = "SELECT content FROM inbox WHERE origin = ?1 AND txn_id = ?2 AND id <> ?3
                       AND sha256 <> (SELECT sha256 FROM inbox WHERE id = ?3)
                       AND state = 'waiting' AND authorization IS NOT NULL ORDER BY id LIMIT ?4";
            let mut statement = connection.prepare_cached(sql)?;
            let content = |row: &rusqlite::Row<'_>| row.get::<_, Vec<u8>>(0).map(Bytes::from);
            let waiting = statement.query_map(key, content)?.collect::<Result<_, _>>()?;
            let sql =
                "SELECT edus FROM seen WHERE origin = ?1 AND txn_id = ?2 AND is_superseded <> 1
                       AND sha256 <> (SELECT sha256 FROM inbox WHERE id = ?3)
                       AND NOT EXISTS (SELECT 1 FROM inbox WHERE inbox.origin = seen.origin AND
                           inbox.txn_id = seen.txn_id AND inbox.sha256 = seen.sha256
                           AND inbox.state NOT IN ('delivered'))";
            let key = params![origin.as_str(), txn_id, id];
            let mut statement = connection.prepare_cached(sql)?;
            let edus = statement.query_map(key, |row| row.get::<_, Option<Vec<u8>>>(0))?;
            let delivered: Vec<Option<Vec<u8>>> = edus.collect::<Result<_, _>>()?;
            let is_one_delivered = !delivered.is_empty();
            let delivered_edus = delivered.into_iter().flatten().flatten().collect();
            let is_copy = seen::is_copy(connection, id)?;
            Ok(Twins { waiting, is_one_delivered, is_copy, delivered_edus })
        })
        .await
}
