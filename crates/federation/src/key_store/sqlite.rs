//! Key documents in a SQLite file of their own.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use restante_federation_proto::{BelievedDocument, Evidence, KeyDocument, ServerName, Timestamp};
use restante_sqlite::{Database, Limits, Migration, OpenError, Schema, StoreError};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{KeyStore, KeyStoreError};

/// Servers whose documents are kept: several times the public federation, and a bound for whoever makes up servers.
const SERVERS_MAX: u64 = 100_000;
/// When full, documents that nothing has renewed for so long make room.
const UNRENEWED_MAX: Duration = Duration::from_hours(90 * 24);

const SCHEMA: Schema = Schema {
    kind: "keys",
    application_id: 0x5253_544b,
    migrations: &[Migration {
        sql: "CREATE TABLE key_documents (
                  server TEXT PRIMARY KEY,
                  evidence TEXT NOT NULL,
                  learned_at INTEGER NOT NULL,
                  document BLOB NOT NULL
              ) STRICT, WITHOUT ROWID;
              CREATE INDEX key_documents_by_age ON key_documents (learned_at);",
    }],
};

/// In a SQLite file of its own.
#[derive(Clone)]
pub struct SqliteKeyStore {
    database: Database,
    servers_max: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("it holds the keys of {0} servers, as many as it may; see `restante keys list`")]
struct Full(u64);

impl SqliteKeyStore {
    /// Opens or creates the file.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let database = Database::open(path, &SCHEMA, Limits::default())?;
        Ok(Self { database, servers_max: SERVERS_MAX })
    }
}

#[async_trait]
impl KeyStore for SqliteKeyStore {
    async fn load(&self, server: &ServerName) -> Result<Option<BelievedDocument>, KeyStoreError> {
        let name = server.clone();
        let kept = self.database.read(move |connection| {
            let sql = "SELECT server, evidence, learned_at, document FROM key_documents WHERE server = ?1";
            connection.prepare_cached(sql)?.query_row([name.as_str()], Kept::read).optional()
        });
        Ok(kept.await.map_err(unavailable)?.and_then(Kept::parse))
    }

    async fn save(&self, document: &BelievedDocument) -> Result<(), KeyStoreError> {
        let kept = Kept::of(document);
        let servers_max = self.servers_max;
        let saved = self.database.write(move |connection| {
            if !has_room(connection, &kept, servers_max)? {
                return Ok(false);
            }
            let sql = "INSERT INTO key_documents (server, evidence, learned_at, document) VALUES (?1, ?2, ?3, ?4)
                       ON CONFLICT (server) DO UPDATE SET evidence = ?2, learned_at = ?3, document = ?4";
            let values = params![kept.server, kept.evidence, kept.learned_at, kept.document];
            connection.prepare_cached(sql)?.execute(values)?;
            Ok(true)
        });
        if saved.await.map_err(unavailable)? {
            return Ok(());
        }
        Err(KeyStoreError(Full(servers_max).into()))
    }

    async fn forget(&self, server: &ServerName) -> Result<(), KeyStoreError> {
        let name = server.clone();
        let forgotten = self.database.write(move |connection| {
            connection
                .prepare_cached("DELETE FROM key_documents WHERE server = ?1")?
                .execute([name.as_str()])
        });
        forgotten.await.map(drop).map_err(unavailable)
    }

    async fn list(&self) -> Result<Vec<BelievedDocument>, KeyStoreError> {
        let kept = self.database.read(|connection| {
            let sql =
                "SELECT server, evidence, learned_at, document FROM key_documents ORDER BY server";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([], Kept::read)?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        });
        Ok(kept.await.map_err(unavailable)?.into_iter().filter_map(Kept::parse).collect())
    }
}

fn unavailable(error: StoreError) -> KeyStoreError {
    KeyStoreError(error.into())
}

/// A server that is kept already always has room; when full, what nothing renews makes room for others.
fn has_room(connection: &Connection, kept: &Kept, servers_max: u64) -> rusqlite::Result<bool> {
    let known = connection
        .prepare_cached("SELECT 1 FROM key_documents WHERE server = ?1")?
        .exists([&kept.server])?;
    if known || count(connection)? < servers_max {
        return Ok(true);
    }
    let unrenewed = kept.learned_at.saturating_sub(millis(UNRENEWED_MAX));
    connection
        .prepare_cached("DELETE FROM key_documents WHERE learned_at < ?1")?
        .execute([unrenewed])?;
    Ok(count(connection)? < servers_max)
}

fn count(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT count(*) FROM key_documents")?
        .query_row([], |row| row.get::<_, i64>(0))
        .map(i64::unsigned_abs)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A row.
struct Kept {
    server: String,
    evidence: &'static str,
    learned_at: i64,
    document: Vec<u8>,
}

/// How evidence is written in the table.
const EVIDENCE: [(Evidence, &str); 5] = [
    (Evidence::FirstContact, "first-contact"),
    (Evidence::Event, "event"),
    (Evidence::Vouched, "vouched"),
    (Evidence::Fetched, "fetched"),
    (Evidence::NameIsKey, "name"),
];

impl Kept {
    fn of(believed: &BelievedDocument) -> Self {
        let written = EVIDENCE.iter().find(|(evidence, _)| *evidence == believed.evidence);
        Self {
            server: believed.document.server_name().as_str().to_owned(),
            evidence: written.map_or("first-contact", |(_, written)| *written),
            learned_at: i64::try_from(believed.learned_at.as_millis()).unwrap_or(i64::MAX),
            document: believed.document.raw().to_vec(),
        }
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let written: String = row.get(1)?;
        let known = EVIDENCE.iter().find(|(_, known)| *known == written);
        Ok(Self {
            server: row.get(0)?,
            evidence: known.map_or("", |(_, known)| *known),
            learned_at: row.get(2)?,
            document: row.get(3)?,
        })
    }

    /// What can't be read any more is as good as not kept: it is learned again.
    fn parse(self) -> Option<BelievedDocument> {
        let evidence = EVIDENCE.iter().find(|(_, written)| *written == self.evidence);
        let document = KeyDocument::parse(Bytes::from(self.document));
        match (evidence, document) {
            (Some((evidence, _)), Ok(document)) => Some(BelievedDocument {
                document,
                evidence: *evidence,
                learned_at: Timestamp::from_millis(self.learned_at.unsigned_abs()),
            }),
            (_, document) => {
                let error = document.err();
                tracing::warn!(server = self.server, ?error, "a kept key document is unreadable");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use restante_federation_proto::{SigningKey, mint};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn believed(server: &str, evidence: Evidence, learned_at: Timestamp) -> BelievedDocument {
        let key = SigningKey::from_seed("ed25519:1".parse().unwrap(), &[7; 32]);
        let document = mint(&server.parse().unwrap(), &key, None, NOW.after(UNRENEWED_MAX));
        BelievedDocument { document, evidence, learned_at }
    }

    #[tokio::test]
    async fn documents_are_found_again_after_a_restart_until_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.sqlite");
        let (a, b) = (
            believed("a.example", Evidence::Fetched, NOW),
            believed("b.example", Evidence::Event, NOW),
        );
        let store = SqliteKeyStore::open(&file).unwrap();
        store.save(&believed("a.example", Evidence::Vouched, NOW)).await.unwrap();
        store.save(&b).await.unwrap();
        store.save(&a).await.unwrap();
        drop(store);

        let store = SqliteKeyStore::open(&file).unwrap();
        assert_eq!(store.load(a.document.server_name()).await.unwrap(), Some(a.clone()));
        assert_eq!(store.list().await.unwrap(), [a.clone(), b.clone()]);
        store.forget(a.document.server_name()).await.unwrap();
        assert_eq!(store.load(a.document.server_name()).await.unwrap(), None);
        assert_eq!(store.list().await.unwrap(), [b]);
    }

    #[tokio::test]
    async fn a_full_store_refuses_strangers_and_lets_go_of_what_nothing_renews() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = SqliteKeyStore::open(&folder.path().join("keys.sqlite")).unwrap();
        store.servers_max = 2;
        store.save(&believed("a.example", Evidence::Fetched, NOW)).await.unwrap();
        store.save(&believed("b.example", Evidence::Fetched, NOW)).await.unwrap();
        assert!(store.save(&believed("c.example", Evidence::Fetched, NOW)).await.is_err());

        let later = NOW.after(UNRENEWED_MAX).after(Duration::from_secs(1));
        store.save(&believed("b.example", Evidence::Fetched, later)).await.unwrap();
        store.save(&believed("c.example", Evidence::Fetched, later)).await.unwrap();
        let servers: Vec<_> = store.list().await.unwrap();
        let servers: Vec<_> =
            servers.iter().map(|kept| kept.document.server_name().as_str()).collect();
        assert_eq!(servers, ["b.example", "c.example"]);
    }

    #[tokio::test]
    async fn every_schema_so_far_is_taken_over_and_loses_nothing() {
        let migrations: Vec<_> = SCHEMA.migrations.iter().map(|step| step.sql).collect();
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        for fixture in restante_sqlite_faults::fixtures(&kept, &migrations).unwrap() {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("keys.sqlite");
            fixture.write(&file).unwrap();

            let store = SqliteKeyStore::open(&file).unwrap();

            let kept: Vec<_> = store.list().await.unwrap();
            let servers = kept.iter().map(|kept| kept.document.server_name().as_str());
            let expected = ["a.example", "b.example", "c.example", "d.example"];
            assert_eq!(servers.collect::<Vec<_>>(), expected, "schema {}", fixture.version);
            assert_eq!(kept[2].evidence, Evidence::Event);
            assert_eq!(kept[2].learned_at, NOW.after(Duration::from_millis(2)));
            store.save(&believed("e.example", Evidence::Fetched, NOW)).await.unwrap();
            assert_eq!(store.list().await.unwrap().len(), 5, "schema {}", fixture.version);
        }
    }
}
