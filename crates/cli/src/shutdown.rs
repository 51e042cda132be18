//! Softly first, then hard: the first signal lets requests under way finish, the second does not wait.

use restante_federation::{Certificate, Reloaded};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::systemd;

/// Runs `serving` until it ends by itself or after a signal cancelled `shutdown`; a second signal ends it at once.
/// SIGHUP reads the files of `certificate` again.
pub(crate) async fn until_signal(
    serving: impl Future<Output = ()>,
    certificate: Option<Certificate>,
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
                    _ = hangup.recv() => reload(certificate.as_ref()).await,
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

async fn reload(certificate: Option<&Certificate>) {
    let Some(certificate) = certificate else {
        tracing::info!(
            "no certificate files to read again; restart to apply a changed configuration"
        );
        return;
    };
    match certificate.reload().await {
        // That is logged where it happens.
        Ok(Reloaded::Renewed) => {}
        Ok(Reloaded::Unchanged) => tracing::info!("the certificate files are unchanged"),
        Err(error) => tracing::warn!(%error, "the earlier certificate stays; correct the files"),
    }
}
