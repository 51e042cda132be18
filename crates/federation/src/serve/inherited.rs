//! Listening sockets that the service manager opened and holds while the program is restarted (sd_listen_fds(3)), so
//! that nobody's connection is refused meanwhile.

use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

use super::Place;

/// The sockets that nobody has taken yet.
#[derive(Debug, Default)]
pub struct InheritedSockets(Vec<Offered>);

#[derive(Debug)]
struct Offered {
    /// `FileDescriptorName=` of the socket unit.
    name: String,
    address: SocketAddr,
    socket: TcpListener,
}

impl InheritedSockets {
    /// Those that this process was started with. To be called once, before there are threads: the variables of the
    /// environment that tell of them are removed, so that no child takes them for its own.
    pub fn of_process() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..passed.len() {
            let name = names.next().unwrap_or_default().to_owned();
            let taken = passed.take_tcp_listener(index);
            let opened = taken.and_then(|socket| {
                let Some(socket) = socket else { return Ok(None) };
                socket.set_nonblocking(true)?;
                Ok(Some(Offered { name: name.clone(), address: socket.local_addr()?, socket }))
            });
            match opened {
                Ok(offered) => sockets.extend(offered),
                Err(error) => {
                    tracing::warn!(%error, name, "a socket of the service manager can't be used; it must be a TCP listener");
                }
            }
        }
        Self(sockets)
    }

    /// The socket for `place`: the one of its name, else the one of its address.
    pub(super) fn take(&mut self, place: Place<'_>) -> Option<TcpListener> {
        let offered = self.0.iter().map(|offered| (&*offered.name, offered.address));
        let offered = self.0.remove(choose(place, offered)?);
        let Place { door, address } = place;
        if offered.address != address {
            tracing::info!(door, address = %offered.address, configured = %address, "the service manager's socket goes before the configured address");
        }
        Some(offered.socket)
    }

    /// Says which sockets are for no door, and closes them.
    pub fn close_rest(self) {
        for Offered { name, address, .. } in self.0 {
            tracing::warn!(name, %address, "this socket of the service manager is for no door; give it the name of one with FileDescriptorName=, or listen on its address");
        }
    }
}

/// Pure: which of the offered names and addresses fits.
fn choose<'a>(
    place: Place<'_>,
    offered: impl Iterator<Item = (&'a str, SocketAddr)> + Clone,
) -> Option<usize> {
    let by_name = offered.clone().position(|(name, _)| !name.is_empty() && name == place.door);
    by_name.or_else(|| offered.clone().position(|(_, address)| address == place.address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(door: &str, address: &str, offered: &[(&str, &str)]) -> Option<usize> {
        let offered = offered.iter().map(|(name, address)| (*name, address.parse().unwrap()));
        choose(Place { door, address: address.parse().unwrap() }, offered)
    }

    #[test]
    fn a_name_goes_before_an_address_and_no_socket_fits_two_doors() {
        let offered =
            [("unit.socket", "0.0.0.0:8090"), ("public", "[::]:443"), ("", "127.0.0.1:8091")];
        assert_eq!(chosen("public", "0.0.0.0:8090", &offered), Some(1));
        assert_eq!(chosen("operators", "127.0.0.1:8091", &offered), Some(2));
        assert_eq!(chosen("inbound", "127.0.0.1:8448", &offered), None);
        assert_eq!(chosen("inbound", "127.0.0.1:8448", &[]), None);
    }

    #[test]
    fn what_is_taken_is_there_no_longer() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let mut sockets = InheritedSockets(vec![Offered { name: String::new(), address, socket }]);
        assert!(sockets.take(Place { door: "public", address }).is_some());
        assert!(sockets.take(Place { door: "operators", address }).is_none());
    }
}
