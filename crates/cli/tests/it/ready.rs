//! Plays systemd's part: learns when a program is ready.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longer than a start takes on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// The socket that `NOTIFY_SOCKET` names.
pub(crate) struct Notified {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Notified {
    /// A socket in `folder`, in the place of an earlier one.
    pub(crate) fn bind(folder: &Path) -> Self {
        let path = folder.join("notify");
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, path }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What the program says next.
    pub(crate) fn next_state(&self) -> String {
        let mut state = [0; 64];
        let length = self.socket.recv(&mut state).unwrap();
        String::from_utf8(state[..length].to_vec()).unwrap()
    }
}
