//! The relay's operators' door: what it shows and changes, behind a token.

mod backup;
mod document;
mod envelopes;
mod export;
mod holding;
mod import;
mod invites;
mod mailboxes;
mod ready;
mod reload;
mod status;
mod wire;

use std::sync::Arc;

use restante_federation::{BaseUrl, OpenConnections};
use restante_federation_proto::ServerName;
use restante_mailbox::MailboxSummary;
use restante_operators::{
    Door, Metrics, Readiness, Refusal, Reload, Routes, Token, not_found, unavailable,
};
use tokio::sync::{Mutex, watch};

use crate::state::RelayState;

pub(crate) use ready::readiness;

/// What the admin API shows and changes.
#[derive(Clone)]
pub(crate) struct OperatorsState {
    pub(crate) relay: RelayState,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) connections: OpenConnections,
    /// Where others reach this relay; stands in invites.
    pub(crate) public_url: watch::Receiver<Option<BaseUrl>>,
    /// Held by an import: each may have tens of megabytes in memory.
    pub(crate) importing: Arc<Mutex<()>>,
    /// Absent where there is no file to read again.
    pub(crate) reload: Option<Arc<dyn Reload>>,
}

/// The relay's door.
pub(crate) fn door(state: OperatorsState, metrics: Arc<Metrics>, token: Token) -> Door {
    let readiness = state.readiness.clone();
    let routes = routes().with_state(state);
    Door { token, readiness, metrics, routes, document: document::document() }
}

/// All routes of the admin API.
fn routes() -> Routes<OperatorsState> {
    Routes::new()
        .get("/status", status::handle)
        .get("/mailboxes", mailboxes::list)
        .get("/mailboxes/{server}", mailboxes::show)
        .get("/mailboxes/{server}/envelopes", envelopes::list)
        .post("/mailboxes/{server}/hold", holding::hold)
        .post("/mailboxes/{server}/release", holding::release)
        .post("/mailboxes/{server}/drop", holding::drop_mail)
        .post("/mailboxes/{server}/evict", holding::evict)
        .get("/mailboxes/{server}/export", export::handle)
        .post("/mailboxes/{server}/import", import::handle)
        .get("/invites", invites::list)
        .post("/invites", invites::make)
        .delete("/invites/{id}", invites::revoke)
        .post("/backup", backup::handle)
        .post("/reload", reload::handle)
}

impl OperatorsState {
    /// The mailbox of `server`, or that there is none.
    async fn mailbox(&self, server: &ServerName) -> Result<MailboxSummary, Refusal> {
        let summary = self.relay.stores.custody.summary(server).await.map_err(unavailable)?;
        summary.ok_or_else(|| no_mailbox(server))
    }
}

fn no_mailbox(server: &ServerName) -> Refusal {
    not_found(format!("{server} has no mailbox here; GET /mailboxes lists them"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_documented() {
        let document = document::document();
        assert_eq!(restante_operators::undocumented(routes().endpoints(), &document), []);
    }
}
