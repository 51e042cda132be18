//! Owns the tasks that hyper spawns: they end when the client or server goes.

use hyper::rt::Executor;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Spawns tasks that live no longer than the [`TaskOwner`] it came from.
#[derive(Clone)]
pub(crate) struct OwnedExecutor {
    ended: CancellationToken,
}

/// Ends the tasks of its executors when dropped.
pub(crate) struct TaskOwner {
    ended: CancellationToken,
    _guard: DropGuard,
}

impl TaskOwner {
    pub(crate) fn new() -> Self {
        let ended = CancellationToken::new();
        Self { _guard: ended.clone().drop_guard(), ended }
    }

    pub(crate) fn executor(&self) -> OwnedExecutor {
        OwnedExecutor { ended: self.ended.clone() }
    }
}

impl<F> Executor<F> for OwnedExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        let ended = self.ended.clone();
        tokio::spawn(async move {
            ended.run_until_cancelled(task).await;
        });
    }
}
