//! Work that goes on after its cause was answered: counted, bounded in time, and ended with the node.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Owns tasks. Clones share them; whoever made it ends it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Background {
    tasks: TaskTracker,
    stop: CancellationToken,
    hard_stop: CancellationToken,
}

impl Background {
    /// Runs `work` until it ends or the node does. The caller bounds its time and how many there are.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let hard_stop = self.hard_stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = work => {}
                () = hard_stop.cancelled() => {}
            }
        });
    }

    /// The same after `wait`, unless the node stops before that.
    pub(crate) fn spawn_after(
        &self,
        wait: Duration,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let stop = self.stop.clone();
        self.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            work.await;
        });
    }

    /// Lets work under way finish within `drain`, cancels the rest, and returns when all of it has ended.
    pub(crate) async fn stop(&self, drain: Duration) {
        self.tasks.close();
        self.stop.cancel();
        if tokio::time::timeout(drain, self.tasks.wait()).await.is_err() {
            tracing::info!(tasks = self.tasks.len(), "ending background work that took too long");
            self.hard_stop.cancel();
            self.tasks.wait().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn stopping_waits_for_what_ends_in_time_and_ends_the_rest() {
        let background = Background::default();
        let (done, finished) = tokio::sync::oneshot::channel();
        background.spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            done.send(()).ok();
        });
        background.spawn(std::future::pending());
        background.stop(Duration::from_secs(5)).await;
        assert!(finished.await.is_ok());
    }
}
