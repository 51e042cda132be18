//! The node's operators' door: what it shows and changes, behind a token.

mod document;
mod keys;
pub(crate) mod matrix_tokens;
mod membership;
mod outbox;
mod parked;
pub(crate) mod ready;
mod relays;
mod reload;
mod status;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use restante_operators::{Door, Metrics, Readiness, Reload, Routes, Token, TokenError};

use crate::delivery::Delivery;
use crate::inbox::Inbox;
use crate::registration::Registrations;
use crate::retriever::RetrieverStatus;
use crate::site::Site;

/// What the admin API shows and changes.
#[derive(Clone)]
pub(crate) struct AdminState {
    pub(crate) site: Site,
    pub(crate) delivery: Delivery,
    pub(crate) inbox: Inbox,
    pub(crate) retriever: RetrieverStatus,
    pub(crate) registrations: Registrations,
    pub(crate) readiness: Arc<Readiness>,
    /// Absent where there is no file to read again.
    pub(crate) reload: Option<Arc<dyn Reload>>,
}

/// The node's door.
pub(crate) fn door(state: AdminState, metrics: Arc<Metrics>, token: Token) -> Door {
    let readiness = state.readiness.clone();
    let routes = routes().with_state(state);
    Door { token, readiness, metrics, routes, document: document::document() }
}

/// All routes of the admin API.
fn routes() -> Routes<AdminState> {
    Routes::new()
        .get("/status", status::handle)
        .get("/relays", relays::list)
        .put("/relays/{server}/{relay}", relays::add)
        .delete("/relays/{server}/{relay}", relays::remove)
        .post("/relays/join", membership::join)
        .post("/relays/{relay}/leave", membership::leave)
        .get("/keys", keys::list)
        .get("/keys/{server}", keys::show)
        .put("/keys/{server}", keys::trust)
        .delete("/keys/{server}", keys::forget)
        .get("/outbox", outbox::list)
        .get("/outbox/{destination}", outbox::of_destination)
        .get("/parked", parked::list)
        .post("/parked/retry", parked::retry_all)
        .get("/parked/{id}", parked::show)
        .delete("/parked/{id}", parked::drop_one)
        .post("/parked/{id}/retry", parked::retry)
        .post("/reload", reload::handle)
}

/// Reads the token beside the node's state, and makes it when there is none.
pub(crate) fn open_token(folder: &Path) -> Result<Token, TokenError> {
    Token::load_or_create(&folder.join("admin-token"))
}
