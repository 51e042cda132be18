//! Moves the log into the database file beside the writer, so that commits do not wait for it.
//!
//! A thread with a connection of its own moves it, and what is written meanwhile as well, until little is left: a passive
//! checkpoint stops neither reads nor writes. That little the writer moves between two commits. Only while nobody writes can
//! the log be moved whole, and only then is its file written from its start again.
//!
//! What is moved at once is synced at once, and the commits' own syncs wait behind it: little at a time delays each of them
//! little. But pages that change repeatedly are moved once each time, so a disk that is slow at it is spared until there is more.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::connection;

/// Of the pages from which on the log is moved, one in so many is left to the writer.
const LITTLE: usize = 16;

/// How many times those pages the log has when it is moved however long that took before.
const MANY: usize = 8;

/// How many times those pages the log grows while it is moved before the writer waits for that.
const LARGE: usize = 32;

/// How many times as long as moving took the disk is spared thereafter.
const SPARED: u32 = 8;

/// The log of one database, in its writer's hands. Dropping it ends the thread.
pub(super) struct Log {
    /// Pages in it after the last commit.
    pages: Arc<AtomicUsize>,
    /// Pages from which on it is moved.
    moved_from: usize,
    /// Pages at which it is moved next: more if it could not begin anew.
    due: usize,
    /// Until when the disk is spared, unless there are many.
    spared_until: Instant,
    /// Pages after the commit before.
    before: usize,
    /// Pages when it was begun to be moved.
    begun: usize,
    path: PathBuf,
    work: Arc<Work>,
    thread: Option<JoinHandle<()>>,
    is_failing: bool,
}

#[derive(Default)]
struct Work {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stage: Stage,
    /// How long the thread moved last.
    took: Duration,
    /// Whether there is a thread that moves.
    is_served: bool,
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    /// The log is short.
    #[default]
    Resting,
    /// The thread is to move it, or does.
    Moving,
    /// The writer is to move the rest.
    LittleLeft,
    /// The thread is to end.
    Ending,
}

/// What a checkpoint found and did.
struct Moved {
    /// Pages in the log when it began.
    pages: usize,
    /// Those of them that are in the database file.
    moved: usize,
}

impl Log {
    /// Has `connection` count what it writes. It moves the log itself no longer.
    pub(super) fn of(
        connection: &mut Connection,
        path: &Path,
        moved_from: usize,
    ) -> rusqlite::Result<Self> {
        let pages = Arc::new(AtomicUsize::new(0));
        let counted = pages.clone();
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: i32| {
            counted.store(usize::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self {
            pages,
            moved_from,
            due: moved_from,
            spared_until: Instant::now(),
            before: 0,
            begun: 0,
            path: path.to_owned(),
            work: Arc::default(),
            thread: None,
            is_failing: false,
        })
    }

    /// To be called after each commit of `connection`.
    pub(super) fn committed(&mut self, connection: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.before {
            self.due = self.moved_from;
        }
        self.before = pages;
        match self.work.stage() {
            Stage::Resting if self.is_due() => self.begin(),
            Stage::Moving if pages >= self.begun + LARGE * self.moved_from => {
                self.work.wait_until_moved();
                self.finish(connection);
            }
            Stage::LittleLeft => self.finish(connection),
            Stage::Resting | Stage::Moving | Stage::Ending => {}
        }
    }

    fn is_due(&self) -> bool {
        self.before >= self.due
            && (self.before >= MANY * self.moved_from || Instant::now() >= self.spared_until)
    }

    fn begin(&mut self) {
        self.begun = self.before;
        if self.work.begin() == Served::Yes {
            return;
        }
        let (work, path) = (self.work.clone(), self.path.clone());
        let (pages, little) = (self.pages.clone(), self.moved_from / LITTLE);
        let moving = move || serve(&work, &path, (&pages, little));
        match std::thread::Builder::new().name("sqlite-log".into()).spawn(moving) {
            Ok(thread) => self.thread = Some(thread),
            Err(error) => {
                tracing::warn!(%error, "no thread for the database's log; its writer moves it");
                self.work.gone();
            }
        }
    }

    /// Moves what is left.
    fn finish(&mut self, connection: &Connection) {
        let begun = Instant::now();
        let moved = checkpoint(connection);
        let took = self.work.rest() + begun.elapsed();
        self.spared_until = Instant::now() + SPARED * took;
        self.due = self.before + self.until_next(&moved);
        match moved {
            Ok(_) => self.is_failing = false,
            Err(error) if !self.is_failing => {
                self.is_failing = true;
                // Nothing is lost, but the log grows.
                tracing::error!(%error, database = %self.path.display(), "the database's log can't be moved into its file; check the disk");
            }
            Err(_) => {}
        }
    }

    /// Pages to be written until the log is moved again, should it not begin anew: that takes a moment without a read that
    /// began before, which is sought often, unless what somebody reads is so old that moving is in vain.
    fn until_next(&self, moved: &rusqlite::Result<Moved>) -> usize {
        match moved {
            Ok(Moved { pages, moved }) if moved >= pages => (self.moved_from / LITTLE).max(1),
            Ok(_) | Err(_) => self.moved_from,
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.work.end();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that moves the database's log panicked");
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Served {
    Yes,
    No,
}

impl Work {
    fn stage(&self) -> Stage {
        self.lock().stage
    }

    /// The thread is to move the log; whether there is one. Else whoever asks starts it.
    fn begin(&self) -> Served {
        let mut state = self.lock();
        state.stage = Stage::Moving;
        self.changed.notify_all();
        match std::mem::replace(&mut state.is_served, true) {
            true => Served::Yes,
            false => Served::No,
        }
    }

    /// The thread has moved what there was, unless it is to end.
    fn moved(&self, took: Duration) {
        let mut state = self.lock();
        state.took = took;
        state.hand_over();
        self.changed.notify_all();
    }

    /// The thread ends.
    fn gone(&self) {
        let mut state = self.lock();
        state.is_served = false;
        state.hand_over();
        self.changed.notify_all();
    }

    /// The writer has done its part; how long the thread took for its own.
    fn rest(&self) -> Duration {
        let mut state = self.lock();
        state.stage = Stage::Resting;
        std::mem::take(&mut state.took)
    }

    fn end(&self) {
        self.lock().stage = Stage::Ending;
        self.changed.notify_all();
    }

    fn wait_until_moved(&self) {
        let waited = self.changed.wait_while(self.lock(), |state| state.stage == Stage::Moving);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits for something to do; `false` if this is the end.
    fn wait_for_work(&self) -> bool {
        let is_idle = |state: &mut State| matches!(state.stage, Stage::Resting | Stage::LittleLeft);
        let waited = self.changed.wait_while(self.lock(), is_idle);
        waited.unwrap_or_else(PoisonError::into_inner).stage == Stage::Moving
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn hand_over(&mut self) {
        if self.stage == Stage::Moving {
            self.stage = Stage::LittleLeft;
        }
    }
}

/// The thread, from its start on; the writer hears of its end, however it ends.
struct Serving<'a>(&'a Work);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        self.0.gone();
    }
}

/// The thread: opens its connection when there is something to move for the first time.
fn serve(work: &Work, path: &Path, (pages, little): (&AtomicUsize, usize)) {
    let _serving = Serving(work);
    let mut opened = None;
    while work.wait_for_work() {
        let begun = Instant::now();
        if opened.is_none() {
            opened = connection::open_moving(path).inspect_err(not_moved).ok();
        }
        if let Some(connection) = &opened {
            move_most(work, connection, (pages, little));
        }
        work.moved(begun.elapsed());
    }
}

/// Until `little` is left of the `pages` that the log has meanwhile, or it does not go on. A pass syncs the database file only if
/// nothing was written in its time; the last ones are short.
fn move_most(work: &Work, connection: &Connection, (pages, little): (&AtomicUsize, usize)) {
    let mut moved_before = 0;
    while work.stage() == Stage::Moving {
        match checkpoint(connection) {
            Ok(Moved { moved, .. })
                if pages.load(Ordering::Relaxed) > moved + little && moved > moved_before =>
            {
                moved_before = moved;
            }
            Ok(_) => return,
            Err(error) => return not_moved(&error),
        }
    }
}

/// The writer tries as well, and says it aloud.
fn not_moved(error: &rusqlite::Error) {
    tracing::debug!(%error, "the database's log was not moved by its thread");
}

/// Moves what no read needs in the log any more.
fn checkpoint(connection: &Connection) -> rusqlite::Result<Moved> {
    let count = |row: &rusqlite::Row<'_>, index| -> rusqlite::Result<usize> {
        Ok(usize::try_from(row.get::<_, i64>(index)?).unwrap_or(0))
    };
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        Ok(Moved { pages: count(row, 1)?, moved: count(row, 2)? })
    })
}
