//! `GET /status`: relays, destinations that do not answer, and what the inbox holds, and why.

use axum::extract::State;
use axum::response::Response;
use restante_federation::BaseUrl;
use restante_federation_proto::{ServerName, Timestamp};
use restante_operators::{ReadyReport, shown, unavailable};
use restante_relay_api::{Fullness, LeftMail, RelayRecord};
use serde::Serialize;
use utoipa::ToSchema;

use super::AdminState;
use crate::delivery::{Lasting, Refusal, meaning};
use crate::destinations::DestinationState;
use crate::inbox::InboxStatus;
use crate::losses::{self, Lost};
use crate::own_record::FILE_ADVICE;
use crate::registration::Standing;
use crate::retriever::RelayStatus;
use crate::store::trust::{self, Distrusted};

/// How a node is.
#[derive(Serialize, ToSchema)]
pub(super) struct Status {
    #[schema(value_type = String)]
    server_name: ServerName,
    version: &'static str,
    ready: ReadyReport,
    /// Relays that hold our own mail.
    relays: Vec<OwnRelay>,
    /// What others learn of where our mail can be left; absent while we have had no relay.
    relay_record: Option<OwnRelayRecord>,
    /// Destinations that did not answer.
    destinations: Vec<Destination>,
    /// Relays that did not take our mail.
    refusals: Vec<RelayRefusal>,
    /// Relays whose word does not count as sent, since they lost mail again and again.
    #[schema(value_type = [Object])]
    distrusted: Vec<Distrusted>,
    /// Mail for us that relays say was lost, the newest first.
    #[schema(value_type = [Object])]
    losses: Vec<Lost>,
    /// What came in and is not delivered yet, and why.
    #[schema(value_type = Object)]
    inbox: InboxStatus,
}

#[derive(Serialize, ToSchema)]
struct OwnRelay {
    #[schema(value_type = String)]
    server_name: ServerName,
    #[schema(value_type = Option<String>)]
    url: Option<BaseUrl>,
    #[serde(flatten)]
    #[schema(value_type = Object)]
    status: RelayStatus,
    /// Whether the relay serves us; absent before it was asked.
    #[schema(value_type = Option<Object>)]
    registration: Option<Standing>,
    /// What becomes of the mail there, while the relay is being left: `drop` or `keep`.
    #[schema(value_type = Option<String>)]
    leaving: Option<LeftMail>,
}

#[derive(Serialize, ToSchema)]
struct OwnRelayRecord {
    /// Milliseconds since 1970.
    #[schema(value_type = u64)]
    version: Timestamp,
    /// The relays that it names.
    #[schema(value_type = Vec<String>)]
    relays: Vec<ServerName>,
    /// The file that is written for a web server.
    file: Option<String>,
    /// Why it can't be written.
    file_problem: Option<String>,
    /// What to do about that.
    advice: Option<&'static str>,
}

#[derive(Serialize, ToSchema)]
struct Destination {
    #[schema(value_type = String)]
    server_name: ServerName,
    /// Milliseconds since 1970.
    #[schema(value_type = Option<u64>)]
    assumed_offline_since: Option<Timestamp>,
    failures: u32,
    /// Milliseconds since 1970.
    #[schema(value_type = Option<u64>)]
    next_probe_at: Option<Timestamp>,
}

/// How the node is: relays, destinations that do not answer, and what the inbox holds, and why.
#[utoipa::path(get, path = "/_restante/admin/v1/status", tag = "node", security(("token" = [])),
    responses((status = 200, body = Status)))]
pub(super) async fn handle(
    State(state): State<AdminState>,
) -> Result<Response, restante_operators::Refusal> {
    let status = Status {
        server_name: state.site.server_name().clone(),
        version: env!("CARGO_PKG_VERSION"),
        ready: state.readiness.look().await,
        relays: own_relays(&state),
        relay_record: own_relay_record(&state),
        destinations: state.site.destinations.all().into_iter().map(Into::into).collect(),
        refusals: state.delivery.refusals().into_iter().map(Into::into).collect(),
        distrusted: trust::all(&state.site.database).await.map_err(unavailable)?,
        losses: losses::all(&state.site.database).await.map_err(unavailable)?,
        inbox: state.inbox.status().await.map_err(unavailable)?,
    };
    Ok(shown(&status))
}

/// The last refusal of a relay that has taken nothing since.
#[derive(Serialize, ToSchema)]
struct RelayRefusal {
    #[schema(value_type = String)]
    relay: ServerName,
    /// Whose mail it was for.
    #[schema(value_type = String)]
    destination: ServerName,
    reason: String,
    /// Which bound was met: `mailbox`, `share` or `relay`.
    #[schema(value_type = Option<String>)]
    full: Option<Fullness>,
    /// What that means, and who can change it.
    meaning: Option<&'static str>,
    /// Until when the relay is not asked again.
    #[schema(value_type = Option<u64>)]
    rests_until: Option<Timestamp>,
    /// `temporary` or `permanent`.
    lasting: &'static str,
    /// Milliseconds since 1970.
    #[schema(value_type = u64)]
    at: Timestamp,
}

/// The relays that hold our own mail.
fn own_relays(state: &AdminState) -> Vec<OwnRelay> {
    let own = state.site.relays.of(state.site.server_name()).into_iter();
    own.map(|known| OwnRelay {
        status: state.retriever.of(&known.peer.name).unwrap_or_default(),
        registration: state.registrations.of(&known.peer.name),
        leaving: known.departure.map(|departure| departure.mail),
        server_name: known.peer.name,
        url: known.peer.url,
    })
    .collect()
}

fn own_relay_record(state: &AdminState) -> Option<OwnRelayRecord> {
    let own = &state.site.own_record;
    let record: RelayRecord = serde_json::from_slice(&own.published()?).ok()?;
    let (file, file_problem) = own.file().unzip();
    let file_problem = file_problem.flatten();
    Some(OwnRelayRecord {
        version: record.version,
        relays: record.relays.into_iter().map(|relay| relay.server_name).collect(),
        file: file.map(|file| file.display().to_string()),
        advice: file_problem.as_ref().map(|_| FILE_ADVICE),
        file_problem,
    })
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
        Self {
            relay: refusal.relay,
            destination: refusal.destination,
            reason: refusal.reason,
            full: refusal.full,
            meaning: refusal.full.map(meaning),
            rests_until: refusal.rests_until,
            lasting,
            at: refusal.at,
        }
    }
}
