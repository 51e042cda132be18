//! Which addresses a name of a stranger may resolve to: public ones alone (RFC 6890, IANA special-purpose registries).
//!
//! Without this, anybody could name an internal service as his homeserver and have requests sent there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::client::AddressPolicy;

/// Whether `address` may be called under `policy`.
pub(crate) fn allows(policy: &AddressPolicy, address: IpAddr) -> bool {
    is_listed(policy, address) || !is_special(address)
}

/// Whether the operator allows the network of `address` by itself, be it public or not.
pub(crate) fn is_listed(policy: &AddressPolicy, address: IpAddr) -> bool {
    let embedded = embedded_v4(address).map(IpAddr::V4);
    let listed = |address: IpAddr| policy.allow_networks.iter().any(|net| net.contains(&address));
    listed(address) || embedded.is_some_and(listed)
}

fn is_special(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_special_v4(v4),
        IpAddr::V6(v6) => embedded_v4(address).map_or_else(|| is_special_v6(v6), is_special_v4),
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(a: u16, b: u16, c: u16, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), length)
}

const SPECIAL_V4: [Ipv4Net; 15] = [
    v4(0, 0, 0, 0, 8),       // this network
    v4(10, 0, 0, 0, 8),      // private
    v4(100, 64, 0, 0, 10),   // shared by carriers
    v4(127, 0, 0, 0, 8),     // loopback
    v4(169, 254, 0, 0, 16),  // link-local, and the metadata services of clouds
    v4(172, 16, 0, 0, 12),   // private
    v4(192, 0, 0, 0, 24),    // protocol assignments
    v4(192, 0, 2, 0, 24),    // documentation
    v4(192, 88, 99, 0, 24),  // 6to4 relays
    v4(192, 168, 0, 0, 16),  // private
    v4(198, 18, 0, 0, 15),   // benchmarking
    v4(198, 51, 100, 0, 24), // documentation
    v4(203, 0, 113, 0, 24),  // documentation
    v4(224, 0, 0, 0, 4),     // multicast
    v4(240, 0, 0, 0, 4),     // reserved, broadcast
];

const SPECIAL_V6: [Ipv6Net; 10] = [
    v6(0x64, 0xff9b, 1, 48),  // NAT64 for local use
    v6(0x100, 0, 0, 64),      // discard
    v6(0x2001, 0, 0, 23),     // protocol assignments: Teredo, ORCHID, benchmarking
    v6(0x2001, 0xdb8, 0, 32), // documentation
    v6(0x3fff, 0, 0, 20),     // documentation
    v6(0x5f00, 0, 0, 16),     // segment routing
    v6(0xfc00, 0, 0, 7),      // unique local
    v6(0xfe80, 0, 0, 10),     // link-local
    v6(0xfec0, 0, 0, 10),     // site-local
    v6(0xff00, 0, 0, 8),      // multicast
];

const V4_COMPATIBLE: Ipv6Net = v6(0, 0, 0, 96);
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 0, 96);
const SIX_TO_FOUR: Ipv6Net = v6(0x2002, 0, 0, 16);

fn is_special_v4(address: Ipv4Addr) -> bool {
    SPECIAL_V4.iter().any(|net| net.contains(&address))
}

fn is_special_v6(address: Ipv6Addr) -> bool {
    SPECIAL_V6.iter().any(|net| net.contains(&address))
}

/// The IPv4 address that a transition mechanism would turn `address` into. `::` and `::1` are
/// 0.0.0.0 and 0.0.0.1 in this reading, which are special as well.
fn embedded_v4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    if let Some(mapped) = address.to_ipv4_mapped() {
        return Some(mapped);
    }
    let octets = address.octets();
    if V4_COMPATIBLE.contains(&address) || NAT64.contains(&address) {
        return Some(Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15]));
    }
    SIX_TO_FOUR
        .contains(&address)
        .then(|| Ipv4Addr::new(octets[2], octets[3], octets[4], octets[5]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(policy: &AddressPolicy, address: &str) -> bool {
        allows(policy, address.parse().unwrap())
    }

    #[test]
    fn public_addresses_are_allowed() {
        for address in [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
            "2002:101:101::1",
        ] {
            assert!(allowed(&AddressPolicy::default(), address), "{address}");
        }
    }

    #[test]
    fn special_purpose_addresses_are_denied_in_every_disguise() {
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.31.255.255",
            "192.168.0.1",
            "198.19.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
            "2001::1",
            "2001:db8::1",
            "fd00::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!allowed(&AddressPolicy::default(), address), "{address}");
        }
    }

    #[test]
    fn an_operator_may_allow_a_range() {
        let policy = AddressPolicy { allow_networks: vec!["10.0.0.0/8".parse().unwrap()] };
        assert!(allowed(&policy, "10.1.2.3"));
        assert!(allowed(&policy, "::ffff:10.1.2.3"));
        assert!(!allowed(&policy, "127.0.0.1"));
    }

    #[test]
    fn what_is_public_is_listed_only_if_the_operator_lists_it() {
        let policy = AddressPolicy { allow_networks: vec!["1.1.1.0/24".parse().unwrap()] };
        let listed = |address: &str| is_listed(&policy, address.parse().unwrap());
        assert!(listed("1.1.1.1") && listed("::ffff:1.1.1.1"));
        assert!(!listed("1.1.2.1") && !listed("10.0.0.1"));
    }
}
