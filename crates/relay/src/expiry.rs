//! Removes what is past its time, in small steps.

use std::sync::Arc;
use std::time::Duration;

use restante_federation_proto::Clock;
use restante_mailbox::{Due, Expired, MailboxStore};
use tokio_util::sync::CancellationToken;

/// How often to look: mail may stay this much longer than its time.
const INTERVAL: Duration = Duration::from_secs(600);

/// Envelopes per step, so that deposits get their turn between steps.
const BATCH_MAX: usize = 500;

/// Runs until `shutdown`.
pub(crate) async fn run(
    store: Arc<dyn MailboxStore>,
    clock: Arc<dyn Clock>,
    time_to_live: Duration,
    shutdown: CancellationToken,
) {
    while !shutdown.is_cancelled() {
        sweep(store.as_ref(), clock.as_ref(), time_to_live, &shutdown).await;
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

async fn sweep(
    store: &dyn MailboxStore,
    clock: &dyn Clock,
    time_to_live: Duration,
    shutdown: &CancellationToken,
) {
    let mut total = Expired::default();
    while !shutdown.is_cancelled() {
        let now = clock.now();
        let due = Due { now, remembered_from: now.before(time_to_live) };
        match store.expire(due, BATCH_MAX).await {
            Ok(step) if step == Expired::default() => break,
            Ok(step) => {
                total.envelopes += step.envelopes;
                total.remembered += step.remembered;
                total.prolonged += step.prolonged;
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "expiry stopped; it goes on later"
                );
                break;
            }
        }
    }
    if total.envelopes > 0 {
        tracing::info!(envelopes = total.envelopes, "mail expired");
    }
}
