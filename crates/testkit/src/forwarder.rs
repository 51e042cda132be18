//! The way out of a homeserver that has no node: its federation goes straight to static routes.
//!
//! A stock homeserver would ask DNS and speak TLS. This keeps it on loopback, and adds nothing else.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;

use crate::homeserver::OutboundHook;
use crate::http_server::{HttpServer, json, pass_on};

/// What the homeserver shows here; nobody checks it.
const SECRET: &str = "forwarder";

/// Takes requests as Synapse's federation-worker hook sends them.
#[derive(Debug)]
pub(crate) struct Forwarder(HttpServer);

impl Forwarder {
    /// Forwards to `routes`: server name to URL.
    pub(crate) async fn start(routes: BTreeMap<String, String>) -> Self {
        let forward = move |request| {
            let route = route(&request, &routes);
            Box::pin(forward(request, route)) as _
        };
        Self(HttpServer::start(forward).await)
    }

    /// How the homeserver finds it.
    pub(crate) fn hook(&self) -> OutboundHook {
        OutboundHook { port: self.0.port(), secret: SECRET.to_owned() }
    }
}

/// The destination's name and its URL.
fn route(
    request: &Request<Bytes>,
    routes: &BTreeMap<String, String>,
) -> Option<(HeaderValue, String)> {
    let name = request.uri().authority()?.as_str();
    Some((HeaderValue::from_str(name).ok()?, routes.get(name)?.clone()))
}

async fn forward(
    mut request: Request<Bytes>,
    route: Option<(HeaderValue, String)>,
) -> Response<Full<Bytes>> {
    let Some((name, url)) = route else {
        return json(StatusCode::BAD_GATEWAY, Bytes::from_static(b"{}"));
    };
    let headers = request.headers_mut();
    headers.remove(PROXY_AUTHORIZATION);
    headers.insert(HOST, name);
    pass_on(request, &url).await
}
