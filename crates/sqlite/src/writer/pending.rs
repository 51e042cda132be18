//! A write that waits: its work, what came of it, and who asked.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::oneshot;

use crate::StoreError;

/// A write of any type, in two steps: the answer goes out only after the commit.
pub(crate) trait Write: Send {
    /// Runs the work. An `Err` means that its effect must be undone.
    fn run(&mut self, connection: &Connection) -> Result<(), StoreError>;

    /// Tells the caller: its own error if it failed, else the fate of its group.
    fn answer(self: Box<Self>, group: Result<(), StoreError>);
}

pub(crate) struct Pending<T, F> {
    work: Option<F>,
    outcome: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Pending<T, F> {
    pub(crate) fn new(work: F, reply: oneshot::Sender<Result<T, StoreError>>) -> Self {
        Self { work: Some(work), outcome: None, reply }
    }
}

impl<T, F> Write for Pending<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send,
{
    fn run(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let Some(work) = self.work.take() else { return Ok(()) };
        let outcome = match catch_unwind(AssertUnwindSafe(|| work(connection))) {
            Ok(result) => result.map_err(StoreError::from),
            Err(_) => Err(StoreError::Panicked),
        };
        let undo = outcome.as_ref().map(|_| ()).map_err(StoreError::duplicate);
        self.outcome = Some(outcome);
        undo
    }

    fn answer(self: Box<Self>, group: Result<(), StoreError>) {
        let answer = match (self.outcome, group) {
            // The group has looked at the disk; this write saw only that it could not be written.
            (Some(Err(StoreError::Sqlite(own))), Err(StoreError::DiskFull))
                if own.sqlite_error_code() == Some(ErrorCode::SystemIoFailure) =>
            {
                Err(StoreError::DiskFull)
            }
            (Some(Err(own)), _) => Err(own),
            (_, Err(error)) => Err(error),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (None, Ok(())) => Err(StoreError::Closed),
        };
        // The caller may have stopped waiting; its write stands all the same.
        let _ = self.reply.send(answer);
    }
}
