//! What a server name says by itself: a host, perhaps a port.

use std::net::{IpAddr, Ipv6Addr};

/// Where a connection goes when neither name nor DNS says a port.
pub(crate) const FEDERATION_PORT: u16 = 8448;

/// A host: what to connect to, and whom the certificate must name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    Ip(IpAddr),
    Dns(String),
}

impl Host {
    /// From a host as a URL or a server name writes it, IPv6 literals with brackets.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Some(literal) = text.strip_prefix('[') {
            let literal: Ipv6Addr = literal.strip_suffix(']')?.parse().ok()?;
            return Some(Self::Ip(literal.into()));
        }
        if let Ok(literal) = text.parse() {
            return Some(Self::Ip(IpAddr::V4(literal)));
        }
        is_dns_name(text).then(|| Self::Dns(text.to_ascii_lowercase()))
    }
}

/// A server name, or the name that it delegates to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) host: Host,
    pub(crate) port: Option<u16>,
    /// As written: what `Host` must say.
    pub(crate) text: String,
}

impl Named {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, Some(port.parse().ok().filter(|port| *port != 0)?))
            }
            _ => (text, None),
        };
        Some(Self { host: Host::parse(host)?, port, text: text.to_owned() })
    }

    /// The port to connect to, unless DNS has to be asked for it.
    pub(crate) fn fixed_port(&self) -> Option<u16> {
        match &self.host {
            Host::Ip(_) => Some(self.port.unwrap_or(FEDERATION_PORT)),
            Host::Dns(_) => self.port,
        }
    }
}

/// RFC 1035 limits; underscores are let through because operators use them.
fn is_dns_name(text: &str) -> bool {
    let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(named);
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_literals_or_dns_names_with_an_optional_port() {
        let named = |text| Named::parse(text).unwrap();
        assert_eq!(named("10.0.0.1").host, Host::Ip("10.0.0.1".parse().unwrap()));
        assert_eq!(named("10.0.0.1").fixed_port(), Some(8448));
        assert_eq!(named("[::1]").fixed_port(), Some(8448));
        assert_eq!(named("[::1]:443").fixed_port(), Some(443));
        assert_eq!(named("B.example").host, Host::Dns("b.example".into()));
        assert_eq!(named("B.example").text, "B.example");
        assert_eq!(named("b.example").fixed_port(), None);
        assert_eq!(named("b.example:8008").fixed_port(), Some(8008));
    }

    #[test]
    fn what_can_be_no_host_is_refused() {
        let too_long = "a".repeat(64);
        for text in [
            "",
            ":80",
            "a..b",
            "a.",
            "b.example:",
            "b.example:0",
            "b.example:65536",
            "[::1",
            "::1",
            "a b",
            "a/b",
            "[::1]x",
            &too_long,
        ] {
            assert_eq!(Named::parse(text), None, "{text}");
        }
    }
}
