//! Which headers travel on: those about the message, none about the connection (RFC 9110, section 7.6.1).

use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName};

/// Never passed on. The transport writes Host and Content-Length itself, the node's secret is for the node alone, and
/// an answer that the node reads must not come compressed.
const NEVER: [HeaderName; 10] = [
    ACCEPT_ENCODING,
    CONNECTION,
    CONTENT_LENGTH,
    HOST,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The same without a constant of its own in `http`.
const NEVER_BY_NAME: [&str; 2] = ["keep-alive", "proxy-connection"];

/// The headers that travel on.
pub(crate) fn forwardable(headers: &HeaderMap) -> HeaderMap {
    let named_by_connection: Vec<String> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let stays = |name: &HeaderName| {
        NEVER.contains(name)
            || NEVER_BY_NAME.contains(&name.as_str())
            || named_by_connection.iter().any(|named| named == name.as_str())
    };
    let travels = headers.iter().filter(|(name, _)| !stays(name));
    let mut forwarded = HeaderMap::with_capacity(headers.len());
    for (name, value) in travels {
        forwarded.append(name, value.clone());
    }
    forwarded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_and_everything_about_the_connection_stay_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "X-Matrix one"),
            ("authorization", "X-Matrix two"),
            ("proxy-authorization", "Bearer secret"),
            ("host", "b.test:80"),
            ("accept-encoding", "gzip"),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("keep-alive", "5"),
            ("transfer-encoding", "chunked"),
            ("content-length", "7"),
            ("content-type", "application/json"),
            ("user-agent", "Synapse"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        let forwarded = forwardable(&headers);
        let mut left: Vec<&str> = forwarded.iter().map(|(name, _)| name.as_str()).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "authorization", "content-type", "user-agent"]);
    }
}
