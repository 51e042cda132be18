//! `GET /status`: relays, destinations that do not answer, and what the inbox holds, and why.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use restante_federation::BaseUrl;
use restante_federation_proto::{ServerName, Timestamp};
use serde::Serialize;

use super::{AdminState, json};
use crate::delivery::{Lasting, Refusal};
use crate::destinations::DestinationState;
use crate::inbox::InboxStatus;
use crate::retriever::RelayStatus;

#[derive(Serialize)]
struct Status {
    server_name: ServerName,
    relays: Vec<OwnRelay>,
    destinations: Vec<Destination>,
    refusals: Vec<RelayRefusal>,
    inbox: InboxStatus,
}

#[derive(Serialize)]
struct OwnRelay {
    server_name: ServerName,
    url: Option<BaseUrl>,
    #[serde(flatten)]
    status: RelayStatus,
}

#[derive(Serialize)]
struct Destination {
    server_name: ServerName,
    assumed_offline_since: Option<Timestamp>,
    failures: u32,
    next_probe_at: Option<Timestamp>,
}

pub(super) async fn handle(State(state): State<AdminState>) -> Result<Response, super::Refusal> {
    let status = Status {
        server_name: state.site.server_name().clone(),
        relays: own_relays(&state),
        destinations: state.site.destinations.all().into_iter().map(Into::into).collect(),
        refusals: state.delivery.refusals().into_iter().map(Into::into).collect(),
        inbox: state.inbox.status().await?,
    };
    let body = serde_json::to_vec(&status).expect("structs of texts and numbers are JSON");
    Ok(json(StatusCode::OK, body))
}

/// The last refusal of a relay that has taken nothing since.
#[derive(Serialize)]
struct RelayRefusal {
    relay: ServerName,
    reason: String,
    lasting: &'static str,
    at: Timestamp,
}

/// The relays that hold our own mail.
fn own_relays(state: &AdminState) -> Vec<OwnRelay> {
    let own = state.site.relays.of(state.site.server_name()).into_iter();
    own.map(|known| OwnRelay {
        status: state.retriever.of(&known.peer.name).unwrap_or_default(),
        server_name: known.peer.name,
        url: known.peer.url,
    })
    .collect()
}

impl From<DestinationState> for Destination {
    fn from(state: DestinationState) -> Self {
        Self {
            server_name: state.server_name,
            assumed_offline_since: state.assumed_offline_since,
            failures: state.failures,
            next_probe_at: state.next_probe_at,
        }
    }
}

impl From<Refusal> for RelayRefusal {
    fn from(refusal: Refusal) -> Self {
        let lasting = match refusal.lasting {
            Lasting::Temporary => "temporary",
            Lasting::Permanent => "permanent",
        };
        Self { relay: refusal.relay, reason: refusal.reason, lasting, at: refusal.at }
    }
}
