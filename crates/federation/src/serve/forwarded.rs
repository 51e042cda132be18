//! Decides where a request came from when reverse proxies stand before the listener.
//!
//! Pure. A proxy appends the address of whoever called it to `X-Forwarded-For`, behind whatever the caller itself had
//! written there. So the list is read from its right end, and only as far as it was written by proxies that are trusted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Networks of the operator's own reverse proxies, loopback always among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl Default for TrustedProxies {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl TrustedProxies {
    /// Loopback, where a reverse proxy usually is, and `networks`.
    pub fn new(mut networks: Vec<IpNet>) -> Self {
        let loopback = [(IpAddr::from(Ipv4Addr::LOCALHOST), 8), (Ipv6Addr::LOCALHOST.into(), 128)];
        networks.extend(loopback.into_iter().filter_map(|(ip, bits)| IpNet::new(ip, bits).ok()));
        Self(networks)
    }

    /// All of them.
    pub(super) fn into_networks(self) -> Vec<IpNet> {
        self.0
    }

    /// Whether what `address` says of others is believed.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client of a request that came from `peer` with these headers: the right-most address that is no trusted
    /// proxy's. Where the list can't be read, the proxy that wrote this part of it stands for its client.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let lines = headers.get_all(&FORWARDED_FOR).iter().rev();
        // Bytes, not text: what a caller wrote before the comma can't make the rest unreadable.
        let mut items = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        while self.contain(client) {
            let said = items.by_ref().map(<[u8]>::trim_ascii).find(|item| !item.is_empty());
            let Some(address) = said.and_then(address) else { break };
            client = address;
        }
        client
    }
}

/// An address as proxies write it: with or without a port, IPv6 with or without brackets.
fn address(item: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(item).ok()?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse().map(|socket: SocketAddr| socket.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn client_of(peer: &str, lines: &[&[u8]]) -> String {
        let proxies = TrustedProxies::new(vec!["192.0.2.0/24".parse().unwrap()]);
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(line).unwrap());
        }
        proxies.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn only_who_is_trusted_says_for_whom_it_calls() {
        for (peer, expected) in [
            ("127.0.0.1", "203.0.113.9"),
            ("::1", "203.0.113.9"),
            ("::ffff:127.0.0.1", "203.0.113.9"),
            ("192.0.2.7", "203.0.113.9"),
            ("198.51.100.1", "198.51.100.1"),
            ("::ffff:198.51.100.1", "198.51.100.1"),
        ] {
            assert_eq!(client_of(peer, &[b"203.0.113.9"]), expected, "{peer}");
        }
        assert_eq!(client_of("127.0.0.1", &[]), "127.0.0.1");
    }

    #[test]
    fn what_a_client_wrote_itself_counts_for_nothing() {
        for lines in [
            &[b"10.0.0.1, 203.0.113.9".as_slice()][..],
            &[b"10.0.0.1", b"203.0.113.9"],
            &[b"10.0.0.1, 127.0.0.1, \xff\xfe, 203.0.113.9"],
            &[b"\xff", b"unknown,,203.0.113.9 ,"],
            &[b"10.0.0.1, 203.0.113.9, 192.0.2.1, 127.0.0.1"],
            &[b"10.0.0.1, 203.0.113.9", b"192.0.2.1"],
        ] {
            assert_eq!(client_of("127.0.0.1", lines), "203.0.113.9", "{lines:?}");
        }
    }

    #[test]
    fn addresses_are_read_as_proxies_write_them() {
        for (line, expected) in [
            ("203.0.113.9:4711", "203.0.113.9"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
        ] {
            assert_eq!(client_of("127.0.0.1", &[line.as_bytes()]), expected, "{line}");
        }
    }

    #[test]
    fn who_can_not_be_read_is_taken_for_the_proxy_that_wrote_it() {
        for line in ["unknown", "_hidden", "203.0.113.9.1", "[203.0.113.9", "\"203.0.113.9\"", ",,"]
        {
            assert_eq!(client_of("127.0.0.1", &[line.as_bytes()]), "127.0.0.1", "{line}");
        }
        assert_eq!(client_of("127.0.0.1", &[b"10.0.0.1, unknown, 192.0.2.7"]), "192.0.2.7");
    }

    proptest! {
        #[test]
        fn any_header_gives_an_address_and_a_stranger_only_its_own(
            line in proptest::collection::vec(0x20..=0xff_u8, 0..60)
        ) {
            let line: Vec<u8> = line.into_iter().filter(|byte| *byte != 0x7f).collect();
            client_of("127.0.0.1", &[&line]);
            prop_assert_eq!(client_of("198.51.100.1", &[&line]), "198.51.100.1");
            let appended = [line.as_slice(), b", 203.0.113.9"].concat();
            prop_assert_eq!(client_of("127.0.0.1", &[&appended]), "203.0.113.9");
        }
    }
}
