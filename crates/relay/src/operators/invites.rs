//! `/invites`: single-use tokens that let servers register.

use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::response::Response;
use restante_federation_proto::{ServerName, Timestamp};
use restante_mailbox::{
    INVITES_MAX, Invite, InviteHash, InviteId, InviteOutcome, NOTE_BYTES_MAX, OpenInvite, Revoked,
};
use restante_operators::{
    Page, PageQuery, Refusal, RefusalBody, bad_request, conflict, done, json_body, not_found,
    shown, unavailable,
};
use restante_relay_api::{InviteLine, hex};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::OperatorsState;

/// Bytes of a request's body: a server name and a note.
const BODY_BYTES_MAX: usize = 4096;

/// How long an invite is good unless the operator says otherwise: long enough to reach whom it is for.
const EXPIRES_IN_DEFAULT: Duration = Duration::from_secs(7 * 24 * 3600);

/// A token that lies about for longer than a year is a key that nobody knows of.
const EXPIRES_IN_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// What an invite shall be; all may be left out.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct InviteBody {
    /// The only server that may use it; anyone's when absent.
    #[schema(value_type = Option<String>)]
    server: Option<ServerName>,
    /// Milliseconds from now on; a week when absent.
    expires_in_ms: Option<u64>,
    /// The operator's own words.
    #[serde(default)]
    note: String,
}

/// A fresh invite. The line is told once; only its hash is kept.
#[derive(Serialize, ToSchema)]
pub(super) struct Invited {
    id: String,
    /// For `restante relays join LINE`, or a QR code.
    line: String,
    #[schema(value_type = u64)]
    expires_at: Timestamp,
}

/// An invite that is not used yet.
#[derive(Serialize, ToSchema)]
pub(super) struct InviteShown {
    id: String,
    #[schema(value_type = Option<String>)]
    server: Option<ServerName>,
    note: String,
    #[schema(value_type = u64)]
    created_at: Timestamp,
    #[schema(value_type = u64)]
    expires_at: Timestamp,
}

/// Makes an invite.
#[utoipa::path(post, path = "/_restante/admin/v1/invites", tag = "invites", request_body = InviteBody,
    security(("token" = [])),
    responses((status = 200, body = Invited), (status = 400, body = RefusalBody), (status = 409, body = RefusalBody)))]
pub(super) async fn make(
    State(state): State<OperatorsState>,
    request: Request,
) -> Result<Response, Refusal> {
    let InviteBody { server, expires_in_ms, note } = json_body(request, BODY_BYTES_MAX).await?;
    let expires_in = expires_in_ms.map_or(EXPIRES_IN_DEFAULT, Duration::from_millis);
    if expires_in.is_zero() || expires_in > EXPIRES_IN_MAX {
        return Err(bad_request("expires_in_ms must be more than 0 and at most 366 days"));
    }
    let (token, now) = (hex(&rand::random::<[u8; 32]>()), state.relay.clock.now());
    let expires_at = now.after(expires_in);
    let hash = InviteHash::of(token.as_bytes());
    let invite = Invite { hash, server, note, created_at: now, expires_at };
    let outcome = state.relay.stores.registry.invite(invite).await.map_err(unavailable)?;
    let id = match outcome {
        InviteOutcome::Created(InviteId(id)) => id.to_string(),
        InviteOutcome::TooMany => {
            let text = format!("{INVITES_MAX} invites wait to be used; revoke some first");
            return Err(conflict(text));
        }
        InviteOutcome::NoteTooLong => {
            return Err(bad_request(format!("A note has at most {NOTE_BYTES_MAX} bytes")));
        }
    };
    tracing::info!(invite = id, "the operator made an invite");
    let url = state.public_url.borrow().as_ref().map(ToString::to_string);
    let relay = state.relay.server_name().clone();
    let line = InviteLine { relay, url, invite: Some(token) }.to_string();
    Ok(shown(&Invited { id, line, expires_at }))
}

/// Invites that are not used yet, in the order of their numbers.
#[utoipa::path(get, path = "/_restante/admin/v1/invites", tag = "invites", params(PageQuery),
    security(("token" = [])), responses((status = 200, body = Page<InviteShown>)))]
pub(super) async fn list(
    State(state): State<OperatorsState>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(query) = query?;
    let (after, limit) = (query.after::<u64>()?.unwrap_or(0), query.limit());
    let all = state.relay.stores.registry.invites().await.map_err(unavailable)?;
    let behind = all.into_iter().filter(|open| open.id.0 > after);
    let page = behind.take(limit + 1).map(InviteShown::from).collect();
    Ok(shown(&Page::of(page, limit, |invite: &InviteShown| invite.id.clone())))
}

/// Makes an invite void.
#[utoipa::path(delete, path = "/_restante/admin/v1/invites/{id}", tag = "invites", params(("id" = String, Path)),
    security(("token" = [])), responses((status = 200), (status = 404, body = RefusalBody)))]
pub(super) async fn revoke(
    State(state): State<OperatorsState>,
    id: Result<Path<u64>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path(id) = id?;
    let revoked = state.relay.stores.registry.revoke_invite(InviteId(id)).await;
    match revoked.map_err(unavailable)? {
        Revoked::Yes => {
            tracing::info!(invite = id, "the operator revoked an invite");
            Ok(done())
        }
        Revoked::NoSuchInvite => {
            Err(not_found(format!("There is no open invite {id}; it may have been used")))
        }
    }
}

impl From<OpenInvite> for InviteShown {
    fn from(open: OpenInvite) -> Self {
        let Invite { server, note, created_at, expires_at, .. } = open.invite;
        Self { id: open.id.0.to_string(), server, note, created_at, expires_at }
    }
}
