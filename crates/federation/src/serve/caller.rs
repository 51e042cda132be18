//! Who is counted as one: an address, or the network of one subscriber; and how many connections each may have.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use super::TrustedProxies;

/// Where a connection or request came from: an IPv4 address, or the /64 network of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Caller(IpAddr);

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<IpAddr> for Caller {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                // A subscriber has 2^64 addresses.
                let [a, b, c, d, ..] = address.segments();
                Self(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
            address => Self(address),
        }
    }
}

/// How many connections one caller may have at once; one more is closed before anything is read from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionsPerAddress {
    /// Connections of one caller.
    pub max: NonZeroUsize,
    /// Who is not counted: reverse proxies, which bring everybody's connections.
    pub exempt: Vec<IpNet>,
}

impl ConnectionsPerAddress {
    /// Bounds all but loopback and `proxies`.
    pub fn of_strangers(max: NonZeroUsize, proxies: Vec<IpNet>) -> Self {
        Self { max, exempt: TrustedProxies::new(proxies).into_networks() }
    }
}

/// The connections of each caller that is counted.
pub(super) struct Callers {
    limit: ConnectionsPerAddress,
    counts: Arc<Counts>,
}

type Counts = Mutex<HashMap<Caller, Count>>;

#[derive(Default)]
struct Count {
    open: usize,
    warned: bool,
}

/// A caller's connection; dropped when it closes.
pub(super) struct Counted(Option<(Caller, Arc<Counts>)>);

impl Callers {
    pub(super) fn new(limit: ConnectionsPerAddress) -> Self {
        Self { limit, counts: Arc::default() }
    }

    /// Counts one more connection from `address`; `None` if it has too many.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Counted> {
        let address = address.to_canonical();
        if self.limit.exempt.iter().any(|network| network.contains(&address)) {
            return Some(Counted(None));
        }
        let caller = Caller::from(address);
        let mut counts = lock(&self.counts);
        let count = counts.entry(caller).or_default();
        if count.open < self.limit.max.get() {
            count.open += 1;
            return Some(Counted(Some((caller, self.counts.clone()))));
        }
        if !count.warned {
            count.warned = true;
            tracing::warn!(
                %address,
                connections = count.open,
                "this address has too many connections, further ones are closed; if it is a reverse proxy, name it in \
                 trusted_proxies; if many servers share it, raise connections_per_address_max"
            );
        }
        None
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Some((caller, counts)) = self.0.take() else { return };
        let mut counts = lock(&counts);
        let Some(count) = counts.get_mut(&caller) else { return };
        count.open -= 1;
        if count.open == 0 {
            counts.remove(&caller);
        }
    }
}

fn lock(counts: &Counts) -> MutexGuard<'_, HashMap<Caller, Count>> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn callers() -> Callers {
        let exempt = vec!["192.0.2.0/24".parse().unwrap()];
        Callers::new(ConnectionsPerAddress { max: NonZeroUsize::MIN, exempt })
    }

    fn admit(callers: &Callers, address: &str) -> Option<Counted> {
        callers.admit(address.parse().unwrap())
    }

    #[test]
    fn addresses_of_one_ipv6_network_and_mapped_ones_count_as_one() {
        let callers = callers();
        let _six = admit(&callers, "2001:db8::1").unwrap();
        assert!(admit(&callers, "2001:db8::ffff:1").is_none());
        assert!(admit(&callers, "2001:db8:0:1::1").is_some());
        let _four = admit(&callers, "203.0.113.9").unwrap();
        assert!(admit(&callers, "::ffff:203.0.113.9").is_none());
        assert!(admit(&callers, "203.0.113.10").is_some());
    }

    #[test]
    fn exempt_networks_are_not_counted() {
        let callers = callers();
        let _open: Vec<_> = (0..3).map(|_| admit(&callers, "::ffff:192.0.2.7").unwrap()).collect();
        assert!(lock(&callers.counts).is_empty());
    }

    #[test]
    fn all_of_loopback_is_spared() {
        let limit = ConnectionsPerAddress::of_strangers(NonZeroUsize::MIN, Vec::new());
        let callers = Callers::new(limit);
        for address in ["127.0.0.1", "127.0.0.1", "127.8.8.8", "::1", "::1", "::ffff:127.0.0.1"] {
            std::mem::forget(admit(&callers, address).unwrap());
        }
        let _stranger = admit(&callers, "192.0.2.7").unwrap();
        assert!(admit(&callers, "192.0.2.7").is_none());
    }

    #[test]
    fn who_has_no_connection_is_forgotten() {
        let callers = callers();
        let first = admit(&callers, "203.0.113.9").unwrap();
        assert!(admit(&callers, "203.0.113.9").is_none());
        drop(first);
        assert!(lock(&callers.counts).is_empty());
        assert!(admit(&callers, "203.0.113.9").is_some());
    }
}
