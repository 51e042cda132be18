//! The own homeserver: passes requests on to it, and asks it questions in its own name.
//!
//! A request signed with the homeserver's own key, origin and destination its own name, is answered by its
//! federation listener like any other server's.

mod events;
mod pace;
mod questions;
mod replay;
mod server_acls;
mod transport;
mod users;
mod voucher;

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use restante_federation::{BaseUrl, Body, Exchange, ExchangeError, Identity, Patience, Peer};

pub(crate) use events::HeldPdu;
pub(crate) use questions::{Presence, Unavailable};
pub(crate) use replay::Replayed;

use pace::Pace;
use transport::Transport;

/// To passing a request on: a join of a large room takes minutes, and a client's sync waits on purpose.
const PASS_PATIENCE: Patience =
    Patience { connect: Duration::from_secs(5), answer: Duration::from_secs(600) };

/// The own homeserver. Clones share its connections.
#[derive(Clone)]
pub(crate) struct Homeserver {
    shared: Arc<Shared>,
}

struct Shared {
    identity: Identity,
    peer: Peer,
    exchange: Arc<dyn Exchange>,
    pace: Pace,
}

/// The homeserver's URL can't be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "homeserver: {0} speaks TLS; expected the URL of the homeserver's plain listener, such as http://127.0.0.1:8008"
)]
pub struct HomeserverUrlError(BaseUrl);

/// How to reach the homeserver at `url`, which must be plain HTTP.
pub(crate) fn at(url: BaseUrl) -> Result<Arc<dyn Exchange>, HomeserverUrlError> {
    if url.tls {
        return Err(HomeserverUrlError(url));
    }
    Ok(Arc::new(Transport::new(url)))
}

impl Homeserver {
    /// A homeserver that is reached through `exchange`.
    pub(crate) fn over(identity: Identity, exchange: Arc<dyn Exchange>) -> Self {
        let peer = Peer::from(identity.server_name.clone());
        Self { shared: Arc::new(Shared { identity, peer, exchange, pace: Pace::new() }) }
    }

    /// Passes `request` on, streaming; its URI is the target alone.
    pub(crate) async fn pass(
        &self,
        request: Request<Body>,
    ) -> Result<Response<Body>, ExchangeError> {
        self.shared.exchange.exchange(&self.shared.peer, request, PASS_PATIENCE).await
    }
}
