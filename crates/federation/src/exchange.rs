//! The seam between what is said and how it travels: one HTTP exchange with a server.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::uri::Authority;
use http::{Request, Response};
use restante_federation_proto::ServerName;
use serde::{Deserialize, Serialize};

use crate::body::{Body, BoxError};

/// The federation port of an `https` base URL that names none.
const HTTPS_PORT: u16 = 8448;
/// The port of an `http` base URL that names none.
const HTTP_PORT: u16 = 80;

/// A base URL that an operator configured for a server: `http://host:port` or `https://host[:port]`, without path or query.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BaseUrl {
    /// Whether to speak TLS.
    pub tls: bool,
    /// Host as written, IPv6 literals with brackets.
    pub host: String,
    /// Port; 8448 for `https` and 80 for `http` when not written.
    pub port: u16,
}

/// A text is no base URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a base URL; expected http://host:port or https://host:port without a path")]
pub struct BaseUrlError(pub String);

impl FromStr for BaseUrl {
    type Err = BaseUrlError;

    fn from_str(text: &str) -> Result<Self, BaseUrlError> {
        parse_base_url(text).ok_or_else(|| BaseUrlError(text.to_owned()))
    }
}

fn parse_base_url(text: &str) -> Option<BaseUrl> {
    let (tls, rest, default_port) = match text.split_once("://")? {
        ("https", rest) => (true, rest, HTTPS_PORT),
        ("http", rest) => (false, rest, HTTP_PORT),
        _ => return None,
    };
    let authority: Authority = rest.strip_suffix('/').unwrap_or(rest).parse().ok()?;
    if authority.as_str().contains('@') {
        return None;
    }
    let host = authority.host();
    let port = match authority.as_str().strip_prefix(host)? {
        "" => default_port,
        port => port.strip_prefix(':')?.parse().ok().filter(|port| *port != 0)?,
    };
    host_of_url(host)?;
    Some(BaseUrl { tls, host: host.to_owned(), port })
}

/// An address literal or something that can be a DNS name.
fn host_of_url(host: &str) -> Option<()> {
    if let Some(literal) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return literal.parse::<Ipv6Addr>().ok().map(|_| ());
    }
    let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    (!host.is_empty() && host.bytes().all(named)).then_some(())
}

impl TryFrom<String> for BaseUrl {
    type Error = BaseUrlError;

    fn try_from(text: String) -> Result<Self, BaseUrlError> {
        text.parse()
    }
}

impl From<BaseUrl> for String {
    fn from(url: BaseUrl) -> Self {
        url.to_string()
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

/// Whom to call: a server by name, and its URL when that is known without discovery.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The server.
    pub name: ServerName,
    /// Where it is, when somebody says so. It skips discovery.
    pub url: Option<BaseUrl>,
    /// Whose word this is.
    pub named_by: NamedBy,
}

/// Who named a server to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NamedBy {
    /// The operator: the URL skips the deny list of addresses as well.
    Operator,
    /// A stranger, in a relay record for example: the URL must not lead to addresses that are denied to strangers, without
    /// TLS to none but those that the operator allows, and a route of the operator's goes before it.
    Stranger,
}

impl Peer {
    /// A server that the operator named.
    pub fn new(name: ServerName, url: Option<BaseUrl>) -> Self {
        Self { name, url, named_by: NamedBy::Operator }
    }

    /// A server that a stranger named.
    pub fn of_stranger(name: ServerName, url: Option<BaseUrl>) -> Self {
        Self { name, url, named_by: NamedBy::Stranger }
    }
}

impl From<ServerName> for Peer {
    fn from(name: ServerName) -> Self {
        Self::new(name, None)
    }
}

/// How long to wait at each stage of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For discovery, connection and TLS together.
    pub connect: Duration,
    /// From the first byte sent to the answer's head.
    pub answer: Duration,
}

/// How far an exchange came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Discovery, connection and TLS: the peer has seen nothing of the request.
    Connect,
    /// The request was sent, or part of it: the peer may have acted on it.
    Answer,
}

/// Why there is no answer. Every one of these is temporary: another attempt may succeed.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// Discovery found no address.
    #[error("no address found for {server}: {reason}")]
    Unresolvable {
        /// The server that was looked for.
        server: ServerName,
        /// What discovery tried and met.
        reason: String,
    },
    /// The address is on the deny list.
    #[error(
        "the address {address} of {server} is private and not allowed; add it to allow_networks if it is meant"
    )]
    Denied {
        /// The server.
        server: ServerName,
        /// The address that it resolves to.
        address: IpAddr,
    },
    /// No connection.
    #[error("cannot connect to {server}")]
    Connect {
        /// The server.
        server: ServerName,
        /// What the socket or TLS said.
        #[source]
        source: BoxError,
    },
    /// No answer in time.
    #[error("{server} did not answer in time")]
    Timeout {
        /// The server.
        server: ServerName,
        /// How far it came.
        stage: Stage,
    },
    /// The connection broke after the request was sent.
    #[error("the connection to {server} broke")]
    Broken {
        /// The server.
        server: ServerName,
        /// What the connection said.
        #[source]
        source: BoxError,
    },
}

/// One HTTP exchange with a server, by whatever transport.
#[async_trait]
pub trait Exchange: Send + Sync + 'static {
    /// Sends `request` to `peer`. The request's URI is the target alone (path and query), which travels byte for
    /// byte; scheme, authority and `Host` are the transport's. Never follows redirects.
    async fn exchange(
        &self,
        peer: &Peer,
        request: Request<Body>,
        patience: Patience,
    ) -> Result<Response<Body>, ExchangeError>;

    /// The host to which `server`'s name leads, in lower case; `None` where this transport has no way of its own to it, or finds none.
    async fn leads_to(&self, server: &ServerName, patience: Duration) -> Option<String> {
        let _ = (server, patience);
        None
    }

    /// The file at `path` of the web site that `server`'s name is, which is often up when the server itself is not.
    /// Answers other than 200 are errors that say so; so is that this transport knows no web sites.
    async fn web_file(
        &self,
        server: &ServerName,
        path: &'static str,
        patience: Duration,
    ) -> Result<Bytes, WebFileError> {
        let _ = (path, patience);
        Err(WebFileError(format!("{server} has no web site that can be asked")))
    }
}

/// Why a web site gave no file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WebFileError(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_has_scheme_host_and_port() {
        for (text, shown) in [
            ("http://127.0.0.1:8090", "http://127.0.0.1:8090"),
            ("http://relay.example", "http://relay.example:80"),
            ("https://relay.example/", "https://relay.example:8448"),
            ("https://[::1]:443", "https://[::1]:443"),
        ] {
            let url: BaseUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(url.to_string().parse::<BaseUrl>().unwrap(), url);
        }
    }

    #[test]
    fn anything_more_or_less_than_a_base_url_is_refused() {
        for text in [
            "",
            "relay.example",
            "ftp://relay.example",
            "http://",
            "http://:80",
            "http://relay.example/path",
            "http://relay.example?query",
            "http://user@relay.example",
            "http://relay.example:0",
            "http://relay.example:65536",
            "http://relay.example:",
            "http://[::1",
            "http://[nonsense]",
            "http://a b",
        ] {
            assert!(text.parse::<BaseUrl>().is_err(), "{text}");
        }
    }
}
