//! `/mailboxes/{server}/hold`, `release`, `drop` and `evict`: the operator's hand on one mailbox.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use restante_federation_proto::ServerName;
use restante_mailbox::{EntryId, Found, LeftMail, Selection, StoreError};
use restante_operators::{
    Refusal, RefusalBody, bad_request, done, json_body, not_found, shown, stopped_on_the_way,
    unavailable,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{OperatorsState, no_mailbox};
use crate::state::RelayState;

/// Bytes of a request's body: one server name.
const BODY_BYTES_MAX: usize = 4096;

/// Which mail is meant: exactly one of these.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DropBody {
    /// `true`: all that the mailbox has.
    all: Option<bool>,
    /// One envelope.
    id: Option<u64>,
    /// All from one origin.
    #[schema(value_type = Option<String>)]
    origin: Option<ServerName>,
}

/// How much went.
#[derive(Serialize, ToSchema)]
pub(super) struct Dropped {
    dropped: u64,
}

/// From here on the mailbox takes mail and hands none out; nothing in it expires.
#[utoipa::path(post, path = "/_restante/admin/v1/mailboxes/{server}/hold", tag = "mailboxes",
    params(("server" = String, Path)), security(("token" = [])),
    responses((status = 200), (status = 404, body = RefusalBody)))]
pub(super) async fn hold(
    State(state): State<OperatorsState>,
    server: Result<Path<ServerName>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path(server) = server?;
    let found = state.relay.stores.custody.hold(&server).await.map_err(unavailable)?;
    expect_mailbox(found, &server)?;
    tracing::info!(mailbox = %server, "the operator holds a mailbox");
    Ok(done())
}

/// Ends a hold.
#[utoipa::path(post, path = "/_restante/admin/v1/mailboxes/{server}/release", tag = "mailboxes",
    params(("server" = String, Path)), security(("token" = [])),
    responses((status = 200), (status = 404, body = RefusalBody)))]
pub(super) async fn release(
    State(state): State<OperatorsState>,
    server: Result<Path<ServerName>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path(server) = server?;
    // A task of its own: once it is released those who wait hear of it, whether or not the operator still waits.
    let releasing = {
        let (relay, server) = (state.relay.clone(), server.clone());
        state.relay.deposits.spawn(async move {
            let found = relay.stores.custody.release(&server).await?;
            relay.arrivals.announce(&server);
            relay.onward.left(&server);
            Ok::<_, StoreError>(found)
        })
    };
    let found = releasing.await.map_err(unavailable)?.map_err(unavailable)?;
    expect_mailbox(found, &server)?;
    tracing::info!(mailbox = %server, "the operator released a mailbox");
    Ok(done())
}

/// Removes mail for good; its owner is told how much.
#[utoipa::path(post, path = "/_restante/admin/v1/mailboxes/{server}/drop", tag = "mailboxes",
    params(("server" = String, Path)), request_body = DropBody, security(("token" = [])),
    responses((status = 200, body = Dropped), (status = 400, body = RefusalBody), (status = 404, body = RefusalBody)))]
pub(super) async fn drop_mail(
    State(state): State<OperatorsState>,
    server: Result<Path<ServerName>, PathRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let Path(server) = server?;
    let selection = selection(json_body(request, BODY_BYTES_MAX).await?)?;
    state.mailbox(&server).await?;
    let (custody, now) = (state.relay.stores.custody.clone(), state.relay.clock.now());
    // A task of its own: begun, it ends, whether or not the operator still waits for it.
    let dropping = {
        let (server, selection) = (server.clone(), selection.clone());
        let counted = state.relay.counted.clone();
        state.relay.deposits.spawn(async move {
            let dropped = custody.drop_mail(&server, selection, now).await?;
            counted.dropped(dropped);
            Ok::<_, StoreError>(dropped)
        })
    };
    let dropped = dropping.await.map_err(stopped_on_the_way)?.map_err(stopped_on_the_way)?;
    tracing::info!(mailbox = %server, ?selection, dropped, "the operator dropped mail");
    Ok(shown(&Dropped { dropped }))
}

/// Ends a registration. Mail that is there stays for its owner until it expires; who needs an invite here must have
/// another one to come back.
#[utoipa::path(post, path = "/_restante/admin/v1/mailboxes/{server}/evict", tag = "mailboxes",
    params(("server" = String, Path)), security(("token" = [])),
    responses((status = 200), (status = 404, body = RefusalBody)))]
pub(super) async fn evict(
    State(state): State<OperatorsState>,
    server: Result<Path<ServerName>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path(server) = server?;
    // A task of its own: begun, it ends, so that what is known of registrations is what is stored.
    let evicting = {
        let (relay, server) = (state.relay.clone(), server.clone());
        tokio::spawn(async move { end_registration(&relay, &server).await })
    };
    evicting.await.map_err(unavailable)??;
    tracing::info!(mailbox = %server, "the operator ended a registration");
    Ok(done())
}

async fn end_registration(relay: &RelayState, server: &ServerName) -> Result<(), Refusal> {
    let registrations = &relay.admission.registrations;
    let change = registrations.change(server).await;
    // One that is damaged can't be read, and can be ended all the same.
    if let Ok(None) = registrations.terms(server).await {
        return Err(not_found(format!("{server} is not registered here")));
    }
    change.leave(server, LeftMail::Keep, relay.clock.now()).await.map_err(unavailable)?;
    Ok(())
}

fn expect_mailbox(found: Found, server: &ServerName) -> Result<(), Refusal> {
    match found {
        Found::Mailbox => Ok(()),
        Found::NoMailbox => Err(no_mailbox(server)),
    }
}

fn selection(body: DropBody) -> Result<Selection, Refusal> {
    let unclear =
        || bad_request("Say which mail: {\"all\":true}, {\"id\":N} or {\"origin\":\"SERVER\"}");
    match body {
        DropBody { all: Some(true), id: None, origin: None } => Ok(Selection::All),
        DropBody { all: None, id: Some(id), origin: None } => {
            EntryId::new(id).map(Selection::Envelope).ok_or_else(unclear)
        }
        DropBody { all: None, id: None, origin: Some(origin) } => Ok(Selection::Origin(origin)),
        _ => Err(unclear()),
    }
}
