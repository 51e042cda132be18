//! Fetches well-known files: one GET on a connection of its own.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::Empty;
use hyper::client::conn::http1::handshake;

use super::dial::{Dialer, Source};
use crate::body::collect_limited;
use crate::discovery::well_known::{WELL_KNOWN_BYTES_MAX, WebAnswer, WellKnownUrl};
use crate::discovery::{Destination, Web};

/// Web servers, reached by DNS and TLS.
pub(crate) struct HttpsWeb(pub(crate) Arc<Dialer>);

#[async_trait]
impl Web for HttpsWeb {
    async fn ask(&self, url: &WellKnownUrl) -> Result<WebAnswer, String> {
        let destination = Destination { host: url.host.clone(), port: url.port };
        let link = self.0.dial(&[destination], Some(&url.host), Source::Discovery).await;
        let link = link.map_err(|error| error.to_string())?;
        let (mut sender, connection) = handshake(link).await.map_err(|error| error.to_string())?;
        let request = Request::get(&url.path_and_query)
            .header(header::HOST, &url.authority)
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let (head, body) = answer.into_parts();
            let body = collect_limited(body, WELL_KNOWN_BYTES_MAX).await;
            let body = body.map_err(|error| error.to_string())?.to_vec();
            Ok(WebAnswer { status: head.status, headers: head.headers, body })
        };
        // When the connection ends first, the exchange still has what arrived before, or fails by itself.
        let driven = async {
            let _ = connection.await;
            std::future::pending().await
        };
        tokio::select! {
            answer = exchange => answer,
            never = driven => never,
        }
    }
}
