//! A listener for one user of this machine: a socket in a folder, which nobody else can take while the program is down.

use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{Driver, drive};
use super::{ServeLimits, TrustedProxies, accepted, let_finish};

/// What handlers are told of whoever calls at the socket: it is on this machine.
const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A bound socket.
#[derive(Debug)]
pub struct LocalListener(UnixListener);

impl LocalListener {
    /// Binds `path`, for its owner alone. A socket that an earlier process left there is removed; the caller makes sure that
    /// no process still uses it. Anything else that has the name stays, and is an error.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
            Ok(_) => return Err(io::Error::other("something else than a socket has that name")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(Self(listener))
    }
}

/// Serves `router` on `listener` until `shutdown`, as [`serve`](super::serve) does.
pub async fn serve_local(
    LocalListener(listener): LocalListener,
    router: axum::Router,
    limits: ServeLimits,
    shutdown: CancellationToken,
) {
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    let _guard = cut.clone().drop_guard();
    let driver = Driver::new(router, limits, TrustedProxies::default(), shutdown.clone());
    let driver = Arc::new(driver);
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let accept = async {
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let Some((stream, _)) = accepted(listener.accept().await).await else { continue };
            let (driver, cut) = (driver.clone(), cut.clone());
            connections.spawn(async move {
                let _slot = slot;
                cut.run_until_cancelled(drive(driver, stream, HERE)).await;
            });
        }
    };
    shutdown.run_until_cancelled(accept).await;
    drop(listener);
    let_finish(&connections, &cut, limits.drain).await;
}
