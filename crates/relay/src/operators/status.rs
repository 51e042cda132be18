//! `GET /status`: how the relay is.

use axum::extract::State;
use axum::response::Response;
use restante_federation_proto::ServerName;
use restante_mailbox::{KeyUse, Totals};
use restante_operators::{ReadyReport, Refusal, shown, unavailable};
use serde::Serialize;
use utoipa::ToSchema;

use super::OperatorsState;
use crate::config::Serve;
use crate::disk::Room;

/// How a relay is.
#[derive(Serialize, ToSchema)]
pub(super) struct Status {
    #[schema(value_type = String)]
    server_name: ServerName,
    version: &'static str,
    /// `open`, `invited` or `listed`.
    serve: &'static str,
    uptime_ms: u64,
    totals: TotalsShown,
    disk: DiskShown,
    /// Collects that wait for mail.
    waiting_collects: u64,
    /// Servers to which mail is to be delivered.
    onward_destinations: u64,
    /// Open connections at the public door.
    connections: u64,
    at_rest: AtRest,
    ready: ReadyReport,
}

/// What all mailboxes hold.
#[derive(Serialize, ToSchema)]
struct TotalsShown {
    mailboxes: u64,
    /// Those of them that are there for nothing but mail to be delivered onward.
    onward_mailboxes: u64,
    registrations: u64,
    envelopes: u64,
    bytes: u64,
    quarantined: u64,
}

/// The disk of the data folder.
#[derive(Serialize, ToSchema)]
struct DiskShown {
    /// `null` when it can't be told.
    free_bytes: Option<u64>,
    /// Whether mail is refused for it.
    low: bool,
}

/// Which keys seal how much.
#[derive(Serialize, ToSchema)]
struct AtRest {
    keys: Vec<KeyShown>,
}

/// One key.
#[derive(Serialize, ToSchema)]
struct KeyShown {
    id: String,
    envelopes: u64,
}

/// How the relay is: what it holds, who waits, what the disk has left.
#[utoipa::path(get, path = "/_restante/admin/v1/status", tag = "relay", security(("token" = [])),
    responses((status = 200, body = Status)))]
pub(super) async fn handle(State(state): State<OperatorsState>) -> Result<Response, Refusal> {
    let relay = &state.relay;
    let totals = relay.stores.upkeep.totals().await.map_err(unavailable)?;
    let rules = relay.rules();
    let disk = &relay.admission.disk;
    let free = disk.free_bytes();
    let now = relay.clock.now();
    let uptime = now.since(relay.started.by(now));
    Ok(shown(&Status {
        server_name: relay.server_name().clone(),
        version: env!("CARGO_PKG_VERSION"),
        serve: match rules.served.serve {
            Serve::Open => "open",
            Serve::Invited => "invited",
            Serve::Listed => "listed",
        },
        uptime_ms: u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
        disk: DiskShown {
            // A disk that never answered counts as endless.
            free_bytes: (free != u64::MAX).then_some(free),
            low: disk.room(rules.storage.free_disk_bytes_min) == Room::Low,
        },
        at_rest: AtRest { keys: totals.keys.iter().cloned().map(Into::into).collect() },
        totals: totals.into(),
        waiting_collects: relay.arrivals.waiting() as u64,
        onward_destinations: relay.onward.destinations(),
        connections: state.connections.count() as u64,
        ready: state.readiness.look().await,
    }))
}

impl From<Totals> for TotalsShown {
    fn from(totals: Totals) -> Self {
        let Totals {
            mailboxes,
            onward_mailboxes,
            registrations,
            envelopes,
            bytes,
            quarantined,
            keys: _,
        } = totals;
        Self { mailboxes, onward_mailboxes, registrations, envelopes, bytes, quarantined }
    }
}

impl From<KeyUse> for KeyShown {
    fn from(key: KeyUse) -> Self {
        Self { id: key.id, envelopes: key.envelopes }
    }
}
