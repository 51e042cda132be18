//! A database in a folder of its own, and writes held back until they share a group.

use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::Poll;

use restante_sqlite::rusqlite::{self, Connection};
use restante_sqlite::{Database, Limits, Migration, Schema, StoreError};
use tempfile::TempDir;

pub(crate) const NOTES: Schema = Schema {
    kind: "notes",
    application_id: 0x6e6f_7465,
    migrations: &[Migration {
        sql: "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
              CREATE TABLE replies (
                  note INTEGER REFERENCES notes (id) DEFERRABLE INITIALLY DEFERRED
              );",
    }],
};

pub(crate) struct Folder {
    folder: TempDir,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("notes.sqlite")
    }

    pub(crate) fn open(&self) -> Database {
        self.open_with(Limits::default())
    }

    pub(crate) fn open_with(&self, limits: Limits) -> Database {
        Database::open(&self.path(), &NOTES, limits).unwrap()
    }

    /// What a program that knows nothing of [`Database`] sees.
    pub(crate) fn seen_from_outside(&self) -> Vec<String> {
        notes(&Connection::open(self.path()).unwrap()).unwrap()
    }
}

pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

/// Queues a write, and returns before it has run.
pub(crate) async fn queue<F>(database: &Database, work: F) -> Answer
where
    F: FnOnce(&Connection) -> rusqlite::Result<()> + Send + 'static,
{
    let database = database.clone();
    let mut answer: Answer = Box::pin(async move { database.write(work).await });
    let early = poll_fn(|cx| Poll::Ready(answer.as_mut().poll(cx))).await;
    match early {
        Poll::Ready(result) => Box::pin(std::future::ready(result)),
        Poll::Pending => answer,
    }
}

/// Keeps the writer busy until dropped, so that what is queued meanwhile forms one group.
pub(crate) struct Busy {
    release: Option<mpsc::Sender<()>>,
    answer: Answer,
}

pub(crate) async fn keep_busy(database: &Database) -> Busy {
    let (release, released) = mpsc::channel::<()>();
    let (entered, inside) = tokio::sync::oneshot::channel();
    let answer = queue(database, move |_| {
        entered.send(()).unwrap();
        released.recv().ok();
        Ok(())
    })
    .await;
    inside.await.unwrap();
    Busy { release: Some(release), answer }
}

impl Busy {
    pub(crate) async fn end(mut self) {
        drop(self.release.take());
        self.answer.await.unwrap();
    }
}

/// The notes as a read saw them first and last.
type Seen = (Vec<String>, Vec<String>);

/// A read that has seen the notes, and goes on.
pub(crate) struct LongRead {
    go_on: mpsc::Sender<()>,
    reader: tokio::task::JoinHandle<Result<Seen, StoreError>>,
}

pub(crate) async fn long_read(database: &Database) -> LongRead {
    let (begun, reading) = tokio::sync::oneshot::channel();
    let (go_on, gone_on) = mpsc::channel();
    let database = database.clone();
    let reader = tokio::spawn(async move {
        database
            .read(move |connection| {
                let first = notes(connection)?;
                begun.send(()).unwrap();
                gone_on.recv().unwrap();
                Ok((first, notes(connection)?))
            })
            .await
    });
    reading.await.unwrap();
    LongRead { go_on, reader }
}

impl LongRead {
    pub(crate) async fn end(self) -> Seen {
        self.go_on.send(()).unwrap();
        self.reader.await.unwrap().unwrap()
    }
}

pub(crate) fn add(
    text: &str,
) -> impl FnOnce(&Connection) -> rusqlite::Result<()> + Send + 'static + use<> {
    let text = text.to_owned();
    move |connection| connection.execute("INSERT INTO notes (text) VALUES (?1)", [text]).map(drop)
}

pub(crate) fn notes(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT text FROM notes ORDER BY id")?;
    statement.query_map([], |row| row.get(0))?.collect()
}
