//! What changes on a request that is passed on: nothing but what belongs to one connection alone.

use std::net::IpAddr;

use axum::extract::Request;
use axum::response::Response;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Response as HttpResponse, Uri};
use http_body_util::BodyExt;
use restante_federation::{Body, Connection, Via};

use super::Front;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Headers of one connection (RFC 9110, section 7.6.1), besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The request as the homeserver gets it: the raw target, all headers but those of the connection, and who called.
pub(super) fn onward(request: Request, front: Front) -> http::Request<Body> {
    let (mut parts, body) = request.into_parts();
    // HTTP/2 has the host in the target.
    if let Some(authority) = parts.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        parts.headers.entry(header::HOST).or_insert(host);
    }
    parts.uri = target(&parts.uri);
    drop_hop_by_hop(&mut parts.headers);
    let connection = parts.extensions.remove::<Connection>();
    forwarded(&mut parts.headers, connection, front);
    parts.extensions.clear();
    http::Request::from_parts(parts, body.map_err(Into::into).boxed_unsync())
}

/// The homeserver's answer as the caller gets it.
pub(super) fn back(answer: HttpResponse<Body>) -> Response {
    let (mut parts, body) = answer.into_parts();
    drop_hop_by_hop(&mut parts.headers);
    Response::from_parts(parts, axum::body::Body::new(body))
}

/// Who called: the address at the other end, or what a trusted proxy says of it.
pub(super) fn caller(parts: &Parts) -> Option<IpAddr> {
    parts.extensions.get::<Connection>().map(|connection| connection.client)
}

/// Path and query, byte for byte.
pub(super) fn target(uri: &Uri) -> Uri {
    let target = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    Uri::from(target)
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // A caller can't make us lose what the request is about.
        .filter(|name| *name != header::AUTHORIZATION && *name != header::CONTENT_LENGTH)
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

/// Says who called. A homeserver takes the first address for its client, so that one that callers wrote must not go on.
fn forwarded(headers: &mut HeaderMap, connection: Option<Connection>, front: Front) {
    headers.remove(&FORWARDED_FOR);
    let own = match front {
        Front::Tls => HeaderValue::from_static("https"),
        Front::Proxy => HeaderValue::from_static("http"),
    };
    match connection.map(|connection| connection.via) {
        Some(Via::TrustedProxy) => drop(headers.entry(FORWARDED_PROTO).or_insert(own)),
        Some(Via::Stranger) | None => drop(headers.insert(FORWARDED_PROTO, own)),
    }
    let client = connection.map(|connection| connection.client.to_string());
    if let Some(client) = client.and_then(|client| HeaderValue::from_str(&client).ok()) {
        headers.insert(FORWARDED_FOR, client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request {
        let mut request = http::Request::builder().uri("http://b.test/a%2F..//b?%41=");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.extension(connection(Via::Stranger)).body(axum::body::Body::empty()).unwrap()
    }

    fn connection(via: Via) -> Connection {
        let peer = "192.0.2.7:5".parse().unwrap();
        let client = match via {
            Via::Stranger => "192.0.2.7",
            Via::TrustedProxy => "203.0.113.9",
        };
        Connection { peer, client: client.parse().unwrap(), via }
    }

    fn through_proxy(headers: &[(&str, &str)]) -> Request {
        let mut request = request(headers);
        request.extensions_mut().insert(connection(Via::TrustedProxy));
        request
    }

    #[test]
    fn the_target_is_passed_on_byte_for_byte() {
        assert_eq!(onward(request(&[]), Front::Tls).uri().to_string(), "/a%2F..//b?%41=");
    }

    #[test]
    fn headers_of_the_connection_stay_behind() {
        let headers = [("connection", "x-mine, close"), ("x-mine", "1"), ("te", "x"), ("x-a", "2")];
        let passed = onward(request(&headers), Front::Tls);
        assert!(!passed.headers().contains_key("x-mine") && !passed.headers().contains_key("te"));
        assert_eq!(passed.headers()["x-a"], "2");
        assert_eq!(passed.headers()["host"], "b.test");
    }

    #[test]
    fn a_caller_can_not_claim_another_address_where_tls_ends_here() {
        let passed = onward(request(&[("x-forwarded-for", "10.0.0.1")]), Front::Tls);
        assert_eq!(passed.headers()["x-forwarded-for"], "192.0.2.7");
        assert_eq!(passed.headers()["x-forwarded-proto"], "https");
    }

    #[test]
    fn a_stranger_can_not_say_how_it_came() {
        let headers = [("x-forwarded-for", "10.0.0.1"), ("x-forwarded-proto", "https")];
        let passed = onward(request(&headers), Front::Proxy);
        assert_eq!(passed.headers()["x-forwarded-for"], "192.0.2.7");
        assert_eq!(passed.headers()["x-forwarded-proto"], "http");
    }

    #[test]
    fn a_proxy_in_front_is_believed_and_the_homeserver_sees_the_client_alone() {
        let headers =
            [("x-forwarded-for", "10.0.0.1, 203.0.113.9"), ("x-forwarded-proto", "https")];
        let passed = onward(through_proxy(&headers), Front::Proxy);
        let all: Vec<_> = passed.headers().get_all("x-forwarded-for").iter().collect();
        assert_eq!(all, ["203.0.113.9"]);
        assert_eq!(passed.headers()["x-forwarded-proto"], "https");
        let caller = caller(&through_proxy(&headers).into_parts().0).unwrap();
        assert_eq!(caller.to_string(), "203.0.113.9");
    }
}
