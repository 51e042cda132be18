//! Counts what each caller asks, by its address before anything is verified and by its name afterwards.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{Extensions, StatusCode};
use ipnet::IpNet;
use restante_federation::{Caller, Connection};
use restante_federation_proto::{ErrorCode, MatrixError, ServerName};
use tokio::time::Instant;

use crate::errors::Refusal;
use crate::rates::{Rate, Rates, TooSoon};
use crate::state::RelayState;

/// Between two warnings about refused requests.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// The rates of all callers.
pub(crate) struct Callers {
    /// Loopback and proxies, which bring everybody's requests.
    exempt: Vec<IpNet>,
    addresses: Rates<Caller>,
    newcomers: Rates<Caller>,
    origins: Rates<ServerName>,
    warned: Mutex<Option<Instant>>,
}

/// Where a request came from; `None` for a place that brings everybody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CameFrom(pub(crate) Option<Caller>);

impl Callers {
    pub(crate) fn new(exempt: Vec<IpNet>) -> Self {
        Self {
            exempt,
            addresses: Rates::new(),
            newcomers: Rates::new(),
            origins: Rates::new(),
            warned: Mutex::new(None),
        }
    }

    /// Where the request with these extensions came from.
    pub(crate) fn of(&self, extensions: &Extensions) -> CameFrom {
        let client = extensions.get::<Connection>().map(|connection| connection.client);
        CameFrom(client.filter(|client| self.counts(client)).map(Caller::from))
    }

    fn counts(&self, address: &IpAddr) -> bool {
        !self.exempt.iter().any(|network| network.contains(address))
    }

    /// Says once a minute that somebody is put off: that may be a reverse proxy which nobody has named.
    fn warn(&self, caller: &Caller) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_some_and(|at| at.elapsed() < WARN_INTERVAL) {
            return;
        }
        *warned = Some(Instant::now());
        tracing::warn!(
            client = %caller,
            "requests of this address, and maybe of others, come too often and are refused; if it is a reverse proxy, \
             name it in trusted_proxies; if many servers share it, raise requests_per_address_per_second"
        );
    }

    /// One more request.
    fn request(&self, from: CameFrom, rate: Rate) -> Result<(), Refusal> {
        let CameFrom(Some(caller)) = from else { return Ok(()) };
        self.addresses.admit(&caller, rate).map_err(|too_soon| {
            self.warn(&caller);
            refusal("this address", too_soon)
        })
    }

    /// One more request that brings a server which is not known.
    pub(crate) fn newcomer(&self, from: CameFrom, rate: Rate) -> Result<(), Refusal> {
        let CameFrom(Some(caller)) = from else { return Ok(()) };
        let too_many =
            |too_soon| refusal("servers that are not known, from this address", too_soon);
        self.newcomers.admit(&caller, rate).map_err(too_many)
    }

    /// One more request of a server whose signature is verified.
    pub(crate) fn origin(&self, origin: &ServerName, rate: Rate) -> Result<(), Refusal> {
        self.origins.admit(origin, rate).map_err(|too_soon| refusal("this server", too_soon))
    }
}

fn refusal(whose: &str, too_soon: TooSoon) -> Refusal {
    let text = format!("Too many requests of {whose}; nothing was done, try again later");
    let error = MatrixError::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::LimitExceeded, text);
    error.retry_after(too_soon.retry_after).into()
}

/// Refuses an address that comes too often, before anything of its request is read.
pub(crate) async fn count_request(
    State(relay): State<RelayState>,
    request: Request,
    next: Next,
) -> Response {
    let from = relay.admission.callers.of(request.extensions());
    match relay.admission.callers.request(from, relay.rules().rates.address) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}
