//! Softly first, then hard: the first signal lets requests under way finish, the second does not wait.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Runs `serving` until it ends by itself or after a signal cancelled `shutdown`; a second signal ends it at once.
pub(crate) async fn until_signal(
    serving: impl Future<Output = ()>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut serving = std::pin::pin!(serving);
    for wait in ["stopping; a second signal stops at once", "stopped at once"] {
        tokio::select! {
            () = &mut serving => return Ok(()),
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("{wait}");
        shutdown.cancel();
    }
    Ok(())
}
