//! By which names the door may be called.
//!
//! A web page can have a browser call a door on loopback, and read its answers once the page's own name leads there (DNS
//! rebinding). Such a call bears the page's name, which is none of these.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, StatusCode, Uri};
use restante_federation_proto::{ErrorCode, MatrixError};

use crate::answer::Refusal;

/// Names beside `localhost` and IP addresses, which no page can have.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hosts(Arc<[String]>);

impl Hosts {
    pub(crate) fn named(names: &[String]) -> Self {
        Self(names.into())
    }

    fn know(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else { return false };
        let host = authority.host();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        bare.parse::<IpAddr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || self.0.iter().any(|name| host.eq_ignore_ascii_case(name))
    }
}

/// Middleware in front of everything that is reached by an address. A request without a name is no browser's.
pub(crate) async fn check(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    let unknown = names(request.uri(), request.headers()).find(|name| !hosts.know(name));
    if let Some(name) = unknown {
        return refusal(name).into_response();
    }
    next.run(request).await
}

/// What the request calls the door, in its target and its headers; what is no text is no name that is known.
fn names<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> impl Iterator<Item = &'a str> {
    let in_headers = headers.get_all(HOST).into_iter();
    let in_headers = in_headers.map(|value| value.to_str().unwrap_or_default());
    uri.authority().map(Authority::as_str).into_iter().chain(in_headers)
}

fn refusal(name: &str) -> Refusal {
    let text = format!(
        "This door does not go by the name {name:?}; call it by its IP address or localhost, or list the name as hosts in [operators] of a relay or [admin] of a node"
    );
    Refusal(MatrixError::new(StatusCode::FORBIDDEN, ErrorCode::Forbidden, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_listed_names_are_known_with_and_without_a_port() {
        let hosts = Hosts::named(&["relay.internal".to_owned()]);
        for known in [
            "127.0.0.1:8091",
            "127.0.0.1",
            "[::1]:8091",
            "[::1]",
            "192.0.2.7:80",
            "localhost",
            "LocalHost:8091",
            "relay.internal:8091",
            "Relay.Internal",
        ] {
            assert!(hosts.know(known), "{known}");
        }
        for unknown in [
            "",
            "evil.example",
            "evil.example:8091",
            "127.0.0.1.evil.example",
            "localhost.evil.example:8091",
            "relay.internal.evil.example",
            "evil.example/127.0.0.1",
            "x@127.0.0.1 evil",
        ] {
            assert!(!hosts.know(unknown), "{unknown}");
        }
    }
}
