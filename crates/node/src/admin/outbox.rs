//! `/outbox`: what was left with relays, and whether it is known to have arrived.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use restante_federation_proto::{ServerName, Timestamp};
use restante_operators::{Refusal, RefusalBody, shown, unavailable};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::AdminState;
use crate::store::outbox::overview::{
    self, DestinationTotals, HolderLine, OutboxLine, Totals, Which,
};
use crate::store::trust::{self, Distrusted};

/// Transactions that are listed unless the operator says otherwise.
const LISTED_DEFAULT: u32 = 200;

/// Transactions in one page.
const LISTED_MAX: u32 = 1_000;

/// All that was left.
#[derive(Serialize, ToSchema)]
pub(super) struct Outbox {
    /// Where something is not known to have arrived, by name; a thousand at most.
    destinations: Vec<Destination>,
    /// Relays whose word does not count as sent, since they lost mail again and again.
    #[schema(value_type = [Object])]
    distrusted: Vec<Distrusted>,
    totals: Sums,
}

#[derive(Serialize, ToSchema)]
struct Destination {
    #[schema(value_type = String)]
    server_name: ServerName,
    /// Transactions that relays took and nobody has confirmed.
    unconfirmed: u64,
    /// Of how many a copy is kept here.
    copies: u64,
    /// What the copies take, compressed.
    bytes: u64,
    /// How many no relay is known to hold, or their recipient misses.
    wanted: u64,
    /// When the oldest of the copies was left, milliseconds since 1970.
    #[schema(value_type = Option<u64>)]
    oldest_at: Option<Timestamp>,
}

/// Since the database was made, but for `copies` and `copy_bytes`.
#[derive(Serialize, ToSchema)]
struct Sums {
    copies: u64,
    copy_bytes: u64,
    confirmed: u64,
    sent_directly: u64,
    left_again: u64,
    /// Made room for others.
    copies_dropped: u64,
    /// Became too old.
    copies_expired: u64,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// Numbers above this one.
    after: Option<u64>,
    /// Transactions at most; 200 unless given, and never more than 1000.
    limit: Option<u32>,
    /// `unconfirmed`, or `all` that is remembered.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    which: Shown,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum Shown {
    #[default]
    Unconfirmed,
    All,
}

/// One transaction.
#[derive(Serialize, ToSchema)]
pub(super) struct Left {
    seq: u64,
    txn_id: String,
    /// When the homeserver first sent it, milliseconds since 1970.
    #[schema(value_type = u64)]
    first_at: Timestamp,
    relays: Vec<Holder>,
    /// When the destination itself took it from us.
    #[schema(value_type = Option<u64>)]
    sent_directly_at: Option<Timestamp>,
    /// When its recipient's receipt came.
    #[schema(value_type = Option<u64>)]
    confirmed_at: Option<Timestamp>,
    /// What the receipt says: `delivered`, or `parked` for its operator.
    confirmed_as: Option<String>,
    /// Since when its recipient's node has it, and events of it wait there for what they follow.
    #[schema(value_type = Option<u64>)]
    waits_since: Option<Timestamp>,
    /// The relay that brought it first, by the receipt.
    brought_by: Option<String>,
    /// Events that were not taken: `count`, and `some` of them with what was said.
    #[schema(value_type = Option<Object>)]
    errors: Option<Box<RawValue>>,
    /// `kept`, `gone` (it made room, or the transaction is older than such copies) or `not needed`.
    copy: &'static str,
    /// What the copy takes, compressed.
    copy_bytes: Option<u64>,
    /// Since when no relay is known to hold it, or its recipient misses it.
    #[schema(value_type = Option<u64>)]
    wanted_since: Option<Timestamp>,
    /// Why the destination itself would not take it.
    refused: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Holder {
    #[schema(value_type = String)]
    server_name: ServerName,
    /// Milliseconds since 1970.
    #[schema(value_type = u64)]
    since: Timestamp,
    /// Its receipt, signed; absent where it gave none that verifies.
    #[schema(value_type = Option<Object>)]
    receipt: Option<Box<RawValue>>,
    /// When it was last asked about it.
    #[schema(value_type = Option<u64>)]
    asked_at: Option<Timestamp>,
    /// What it said: `held`, or `gone` to its recipient.
    said: Option<String>,
}

/// What was left with relays and is not known to have arrived, by destination.
#[utoipa::path(get, path = "/_restante/admin/v1/outbox", tag = "outbox", security(("token" = [])),
    responses((status = 200, body = Outbox)))]
pub(super) async fn list(State(state): State<AdminState>) -> Result<Response, Refusal> {
    let database = &state.site.database;
    let totals = overview::totals(database).await.map_err(unavailable)?;
    let destinations = overview::destinations(database).await.map_err(unavailable)?;
    Ok(shown(&Outbox {
        destinations: destinations.into_iter().map(Into::into).collect(),
        distrusted: trust::all(database).await.map_err(unavailable)?,
        totals: (&totals).into(),
    }))
}

/// What was left for one destination, in the order of its numbers.
#[utoipa::path(get, path = "/_restante/admin/v1/outbox/{destination}", tag = "outbox", params(("destination" = String, Path), Page),
    security(("token" = [])), responses((status = 200, body = [Left]), (status = 400, body = RefusalBody)))]
pub(super) async fn of_destination(
    State(state): State<AdminState>,
    destination: Result<Path<ServerName>, PathRejection>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Response, Refusal> {
    let (Path(destination), Query(page)) = (destination?, page?);
    let limit = page.limit.unwrap_or(LISTED_DEFAULT).min(LISTED_MAX);
    let which = match page.which {
        Shown::Unconfirmed => Which::Unconfirmed,
        Shown::All => Which::All,
    };
    let page = (page.after.unwrap_or(0), limit);
    let lines = overview::lines(&state.site.database, destination, which, page).await;
    let lines = lines.map_err(unavailable)?;
    Ok(shown(&lines.into_iter().map(Into::into).collect::<Vec<Left>>()))
}

impl From<DestinationTotals> for Destination {
    fn from(totals: DestinationTotals) -> Self {
        let DestinationTotals { destination, unconfirmed, copies, bytes, wanted, oldest_at } =
            totals;
        Self { server_name: destination, unconfirmed, copies, bytes, wanted, oldest_at }
    }
}

impl From<&Totals> for Sums {
    fn from(totals: &Totals) -> Self {
        Self {
            copies: totals.of("copies"),
            copy_bytes: totals.of("copy_bytes"),
            confirmed: totals.of("confirmed"),
            sent_directly: totals.of("sent_directly"),
            left_again: totals.of("left_again"),
            copies_dropped: totals.of("copies_dropped"),
            copies_expired: totals.of("copies_expired"),
        }
    }
}

impl From<OutboxLine> for Left {
    fn from(line: OutboxLine) -> Self {
        let is_open = line.delivered_at.is_none() && line.confirmed_at.is_none();
        let copy = match (&line.copy, is_open) {
            (Some(_), _) => "kept",
            (None, true) => "gone",
            (None, false) => "not needed",
        };
        let (wanted_since, refused) = line
            .copy
            .as_ref()
            .map(|copy| (copy.wanted_at, copy.refused.clone()))
            .unwrap_or_default();
        Self {
            seq: line.seq,
            txn_id: line.txn_id,
            first_at: line.first_at,
            relays: line.holders.into_iter().map(Into::into).collect(),
            sent_directly_at: line.delivered_at,
            confirmed_at: line.confirmed_at,
            confirmed_as: line.confirmed_as,
            waits_since: line.waits_since,
            brought_by: line.brought_by,
            errors: line.errors.and_then(|errors| RawValue::from_string(errors).ok()),
            copy,
            copy_bytes: line.copy.map(|copy| copy.bytes),
            wanted_since,
            refused,
        }
    }
}

impl From<HolderLine> for Holder {
    fn from(holder: HolderLine) -> Self {
        let HolderLine { relay, since, receipt, asked_at, said } = holder;
        let receipt = receipt.and_then(|json| RawValue::from_string(json).ok());
        Self { server_name: relay, since, receipt, asked_at, said }
    }
}
