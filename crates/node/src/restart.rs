//! Keeps work going that panicked: a defect in the handling of one thing must not end the handling of all others.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::backoff::backoff;

/// The wait before work begins anew for the first time.
const RESTART_FIRST: Duration = Duration::from_secs(1);

/// The longest of these waits. Work that ran longer than this before it panicked is begun anew after the first wait.
const RESTART_MAX: Duration = Duration::from_secs(60);

/// Runs `work` to its end; `None` if it panicked, which is logged with `what` it was.
pub(crate) async fn caught<T>(what: &str, work: impl Future<Output = T>) -> Option<T> {
    // What is shared is behind locks that are taken again, and in the database, which commits whole or not at all.
    let ended = AssertUnwindSafe(work).catch_unwind().await;
    ended
        .inspect_err(|_| tracing::error!("{what} panicked, which is a defect; please report it"))
        .ok()
}

/// Runs what `work` makes, and again after a growing wait whenever it panicked, until it ends by itself; it must end
/// with `shutdown`.
pub(crate) async fn kept_running<F: Future<Output = ()>>(
    what: &str,
    shutdown: &CancellationToken,
    work: impl Fn() -> F,
) {
    let mut failures = 0;
    loop {
        let begun = Instant::now();
        if caught(what, work()).await.is_some() {
            return;
        }
        failures = if begun.elapsed() > RESTART_MAX { 1 } else { failures + 1 };
        let wait = backoff(failures, RESTART_FIRST, RESTART_MAX, 1.0);
        if shutdown.run_until_cancelled(sleep(wait)).await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_panics_begins_anew_after_growing_waits_until_it_ends() {
        let (begun, runs) = (Instant::now(), AtomicU32::new(0));
        kept_running("a test", &CancellationToken::new(), || async {
            assert!(runs.fetch_add(1, Ordering::Relaxed) >= 3, "not yet");
        })
        .await;
        assert_eq!(runs.into_inner(), 4);
        assert!(begun.elapsed() >= Duration::from_secs(1 + 2 + 4));
    }
}
