//! `/mailboxes`: who has mail here, how much, and who filled it.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use restante_federation_proto::ServerName;
use restante_operators::{Page, PageQuery, Refusal, RefusalBody, shown, unavailable};
use serde::Serialize;
use utoipa::ToSchema;

use super::OperatorsState;
use super::wire::{LossShown, MailboxLine, RegistrationShown, ShareShown};

/// Origins that are shown of one mailbox, in the order of their names; `shares` of more would not fit a screen.
const SHARES_MAX: usize = 1000;

/// One mailbox, with what it holds and lost by origin.
#[derive(Serialize, ToSchema)]
pub(super) struct Mailbox {
    #[serde(flatten)]
    line: MailboxLine,
    registration: Option<RegistrationShown>,
    shares: Vec<ShareShown>,
    losses: Vec<LossShown>,
}

/// Mailboxes in the order of their names.
#[utoipa::path(get, path = "/_restante/admin/v1/mailboxes", tag = "mailboxes", params(PageQuery),
    security(("token" = [])), responses((status = 200, body = Page<MailboxLine>)))]
pub(super) async fn list(
    State(state): State<OperatorsState>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(query) = query?;
    let (after, limit) = (query.after::<ServerName>()?, query.limit());
    let store = &state.relay.stores.mail;
    let found = store.list(after.as_ref(), limit + 1).await.map_err(unavailable)?;
    let lines = found.into_iter().map(MailboxLine::from).collect();
    Ok(shown(&Page::of(lines, limit, |line: &MailboxLine| line.recipient.to_string())))
}

/// One mailbox: its registration, what each origin has in it, and what its owner never got.
#[utoipa::path(get, path = "/_restante/admin/v1/mailboxes/{server}", tag = "mailboxes",
    params(("server" = String, Path)), security(("token" = [])),
    responses((status = 200, body = Mailbox), (status = 404, body = RefusalBody)))]
pub(super) async fn show(
    State(state): State<OperatorsState>,
    server: Result<Path<ServerName>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path(server) = server?;
    let line = state.mailbox(&server).await?.into();
    let stores = &state.relay.stores;
    let registration = stores.registry.registration(&server).await.map_err(unavailable)?;
    let shares = stores.custody.shares(&server, None, SHARES_MAX).await.map_err(unavailable)?;
    let losses = stores.mail.losses(&server).await.map_err(unavailable)?;
    Ok(shown(&Mailbox {
        line,
        registration: registration.map(Into::into),
        shares: shares.into_iter().map(Into::into).collect(),
        losses: losses.into_iter().map(Into::into).collect(),
    }))
}
