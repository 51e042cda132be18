//! Loopback ports that stay ours between a stop and a restart.

use std::fs::{File, TryLockError};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use rand::RngExt as _;

/// Below the range from which kernels take the ports of outgoing connections (32768 on Linux), so
/// that none of those takes the port of a server that is stopped for a while.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// How many taken ports are passed over before giving up.
const ATTEMPTS_MAX: usize = 1000;

/// A port of the loopback interface, reserved among all test processes of this machine until it is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    // Held, not read: the lock on it is the reservation, and ends with the process at the latest.
    _reservation: File,
}

impl Port {
    /// Reserves a free port.
    pub fn reserve() -> Self {
        let mut rng = rand::rng();
        (0..ATTEMPTS_MAX)
            .find_map(|_| Self::try_reserve(rng.random_range(PORTS)))
            .expect("one of a thousand ports is free")
    }

    fn try_reserve(number: u16) -> Option<Self> {
        let path = reservations().join(number.to_string());
        let reservation = File::create(&path).expect("the temporary folder is writable");
        match reservation.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return None,
            Err(TryLockError::Error(error)) => panic!("cannot lock {}: {error}", path.display()),
        }
        TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
        Some(Self { number, _reservation: reservation })
    }

    /// Its number.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }
}

fn reservations() -> PathBuf {
    let folder = std::env::temp_dir().join("restante-testkit-ports");
    std::fs::create_dir_all(&folder).expect("the temporary folder is writable");
    folder
}
