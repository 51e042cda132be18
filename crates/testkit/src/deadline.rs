//! Waits for a condition of another process, with a deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Pause between two looks: short beside what is waited for, long beside what a look costs.
const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// Looks until `look` finds something, and returns it.
///
/// # Panics
///
/// When `deadline` has passed without it, with `what` in the message.
pub async fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {} s", deadline.as_secs());
        sleep(POLL_INTERVAL).await;
    }
}
