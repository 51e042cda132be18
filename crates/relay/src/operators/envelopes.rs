//! `/mailboxes/{server}/envelopes`: what waits, without its content.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use restante_federation_proto::ServerName;
use restante_mailbox::EntryId;
use restante_operators::{Page, PageQuery, Refusal, RefusalBody, shown, unavailable};

use super::OperatorsState;
use super::wire::EnvelopeShown;

/// Envelopes of a mailbox in the order of their ids, those set aside too.
#[utoipa::path(get, path = "/_restante/admin/v1/mailboxes/{server}/envelopes", tag = "mailboxes",
    params(("server" = String, Path), PageQuery), security(("token" = [])),
    responses((status = 200, body = Page<EnvelopeShown>), (status = 404, body = RefusalBody)))]
pub(super) async fn list(
    State(state): State<OperatorsState>,
    server: Result<Path<ServerName>, PathRejection>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let (Path(server), Query(query)) = (server?, query?);
    let (after, limit) = (cursor(query.after()?), query.limit());
    state.mailbox(&server).await?;
    let custody = &state.relay.stores.custody;
    let found = custody.envelopes(&server, after, limit + 1).await.map_err(unavailable)?;
    let lines = found.into_iter().map(EnvelopeShown::from).collect();
    Ok(shown(&Page::of(lines, limit, |line: &EnvelopeShown| line.id.to_string())))
}

/// The highest id stands for all above it, so that a cursor beyond every id never means "from the start".
pub(super) fn cursor(after: Option<u64>) -> Option<EntryId> {
    EntryId::new(after?.min(EntryId::MAX.get()))
}
