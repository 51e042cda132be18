//! Where an operators' door is open: at an address, for monitors, and at a socket in the data folder, for commands.
//!
//! The address can be taken by any user of the machine while the program is down, and would then be given the token; the socket
//! lies in a folder that is its owner's alone.

use std::net::SocketAddr;
use std::path::Path;

use axum::{Router, middleware};
use restante_federation::{Listener, LocalListener, ServeLimits, serve, serve_local};
use tokio_util::sync::CancellationToken;

use crate::hosts::{self, Hosts};

/// The socket, in the data folder of either program.
pub const SOCKET_FILE: &str = "admin.sock";

/// Where one door is open.
pub struct Entrance {
    address: Listener,
    socket: Option<LocalListener>,
    hosts: Hosts,
}

impl Entrance {
    /// At `address`, called by IP addresses, `localhost` or `names`; and at the socket in `folder`, which no other process may
    /// use. Where there can be no socket, because the folder's path is too long for one or the folder takes none, that is told
    /// in the log, and the address alone is open.
    pub fn open(address: Listener, names: &[String], folder: &Path) -> Self {
        let path = folder.join(SOCKET_FILE);
        let socket = LocalListener::bind(&path)
            .inspect_err(|error| {
                let path = path.display();
                tracing::warn!(%path, %error, "commands find no socket there, and have to be given the door's address with --door");
            })
            .ok();
        Self { address, socket, hosts: Hosts::named(names) }
    }

    /// The address that was bound.
    pub fn local_address(&self) -> SocketAddr {
        self.address.local_address()
    }

    /// Serves `door` at both until `shutdown`.
    pub async fn serve(self, door: Router, limits: ServeLimits, shutdown: CancellationToken) {
        let Self { address, socket, hosts } = self;
        let checked = middleware::from_fn_with_state(hosts, hosts::check);
        let at_address = serve(address, door.clone().layer(checked), limits, shutdown.clone());
        let at_socket = async {
            if let Some(socket) = socket {
                serve_local(socket, door, limits, shutdown).await;
            }
        };
        tokio::join!(at_address, at_socket);
    }
}
