//! Softly first, then hard: the first signal lets requests under way finish, the second does not wait.

use std::sync::Arc;

use restante_operators::Reload;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::systemd;

/// Runs `serving` until it ends by itself or after a signal cancelled `shutdown`; a second signal ends it at once.
/// SIGHUP reads the configuration again.
pub(crate) async fn until_signal(
    serving: impl Future<Output = ()>,
    reload: Arc<dyn Reload>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    systemd::notify("READY=1");
    let mut serving = std::pin::pin!(serving);
    for wait in ["stopping; a second signal stops at once", "stopped at once"] {
        let told_to_stop = async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => return,
                    _ = terminate.recv() => return,
                    _ = hangup.recv() => {
                        // What comes of it is logged there.
                        reload.reload().await;
                    }
                }
            }
        };
        tokio::select! {
            () = &mut serving => return Ok(()),
            () = told_to_stop => {}
        }
        systemd::notify("STOPPING=1");
        tracing::info!("{wait}");
        shutdown.cancel();
    }
    Ok(())
}
