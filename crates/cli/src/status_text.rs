//! A node's status as text for a person.

use std::fmt::Write as _;

use serde::Deserialize;

use crate::time_text::time;

/// What the admin API answers to `GET /status`.
#[derive(Debug, Deserialize)]
pub(crate) struct Status {
    server_name: String,
    relays: Vec<RelayLine>,
    destinations: Vec<DestinationLine>,
    refusals: Vec<RefusalLine>,
    inbox: InboxPart,
}

#[derive(Debug, Deserialize)]
struct RelayLine {
    server_name: String,
    url: Option<String>,
    last_collect_at: Option<i64>,
    last_error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct DestinationLine {
    server_name: String,
    assumed_offline_since: Option<i64>,
    failures: u32,
    next_probe_at: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct RefusalLine {
    relay: String,
    reason: String,
    lasting: String,
    at: i64,
}

#[derive(Debug, Deserialize)]
struct InboxPart {
    waiting: Vec<EnvelopeLine>,
    backlog: Vec<RoomLine>,
    missing: Vec<MissingLine>,
    events_parked_total: u64,
    confirmed_total: u64,
    parked_total: u64,
    dropped_total: u64,
}

#[derive(Debug, Deserialize)]
struct RoomLine {
    room_id: String,
    waiting: u64,
    unconfirmed: u64,
    since: i64,
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct MissingLine {
    origin: String,
    first: u64,
    last: u64,
    relays: String,
    noticed_at: i64,
}

#[derive(Debug, Deserialize)]
struct EnvelopeLine {
    origin: String,
    txn_id: String,
    seq: Option<u64>,
    state: String,
    reason: Option<String>,
    arrived_at: i64,
}

/// Lines of the inbox that are shown; the rest is counted.
const ENVELOPES_SHOWN_MAX: usize = 50;

/// The whole status.
pub(crate) fn render(status: &Status) -> String {
    let mut text = format!("node of {}\n", status.server_name);
    relays(&mut text, &status.relays);
    destinations(&mut text, &status.destinations);
    refusals(&mut text, &status.refusals);
    inbox(&mut text, &status.inbox);
    backlog(&mut text, &status.inbox.backlog);
    missing(&mut text, &status.inbox.missing);
    text
}

fn relays(text: &mut String, relays: &[RelayLine]) {
    line(text, "\nrelays that hold our mail");
    if relays.is_empty() {
        line(text, "  none; name one with: restante relays add OWN-SERVER RELAY --url URL");
    }
    for relay in relays {
        let collected = relay
            .last_collect_at
            .map_or("never collected".into(), |at| format!("collected {}", time(at)));
        let url = relay.url.as_deref().unwrap_or("by discovery");
        let error = relay
            .last_error
            .as_ref()
            .map(|error| format!("; last error: {error}"))
            .unwrap_or_default();
        line(text, &format!("  {} ({url}): {collected}{error}", relay.server_name));
    }
}

fn destinations(text: &mut String, destinations: &[DestinationLine]) {
    line(text, "\ndestinations that did not answer");
    if destinations.is_empty() {
        line(text, "  none");
    }
    for destination in destinations {
        let state = match (destination.assumed_offline_since, destination.next_probe_at) {
            (Some(since), Some(probe)) => {
                format!("assumed offline since {}, next probe {}", time(since), time(probe))
            }
            (Some(since), None) => format!("assumed offline since {}", time(since)),
            (None, _) => "still tried".to_owned(),
        };
        line(
            text,
            &format!(
                "  {}: {} failed attempts, {state}",
                destination.server_name, destination.failures
            ),
        );
    }
}

fn refusals(text: &mut String, refusals: &[RefusalLine]) {
    if refusals.is_empty() {
        return;
    }
    line(text, "\nrelays that did not take our mail");
    for refusal in refusals {
        let (relay, at, lasting, reason) =
            (&refusal.relay, time(refusal.at), &refusal.lasting, &refusal.reason);
        line(text, &format!("  {relay}, {at}, {lasting}: {reason}"));
    }
}

fn inbox(text: &mut String, inbox: &InboxPart) {
    let (waiting, confirmed, parked) =
        (inbox.waiting.len(), inbox.confirmed_total, inbox.parked_total);
    let events = inbox.events_parked_total;
    let dropped = match inbox.dropped_total {
        0 => String::new(),
        dropped => format!(", {dropped} dropped by restante node parked drop"),
    };
    line(
        text,
        &format!(
            "\ninbox: {waiting} listed, {parked} parked, {events} single events parked, {confirmed} confirmed so far{dropped}"
        ),
    );
    for envelope in inbox.waiting.iter().take(ENVELOPES_SHOWN_MAX) {
        let seq = envelope.seq.map(|seq| format!(" #{seq}")).unwrap_or_default();
        let reason =
            envelope.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let (origin, txn_id, arrived) =
            (&envelope.origin, &envelope.txn_id, time(envelope.arrived_at));
        line(
            text,
            &format!("  {origin} {txn_id}{seq}, arrived {arrived}, {}{reason}", envelope.state),
        );
    }
    if waiting > ENVELOPES_SHOWN_MAX {
        line(text, &format!("  and {} more; --json shows all", waiting - ENVELOPES_SHOWN_MAX));
    }
}

fn backlog(text: &mut String, rooms: &[RoomLine]) {
    if rooms.is_empty() {
        return;
    }
    line(text, "\nrooms whose events wait for earlier ones");
    for room in rooms.iter().take(ENVELOPES_SHOWN_MAX) {
        let reason = room.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let (id, waiting, unconfirmed) = (&room.room_id, room.waiting, room.unconfirmed);
        let since = time(room.since);
        line(
            text,
            &format!("  {id}, since {since}: {waiting} wait, {unconfirmed} unconfirmed{reason}"),
        );
    }
}

fn missing(text: &mut String, numbers: &[MissingLine]) {
    if numbers.is_empty() {
        return;
    }
    line(text, "\nnumbers of a sender's stream that never came");
    for hole in numbers.iter().take(ENVELOPES_SHOWN_MAX) {
        let (origin, relays, noticed) = (&hole.origin, &hole.relays, time(hole.noticed_at));
        let (first, last) = (hole.first, hole.last);
        line(text, &format!("  {origin} {first} to {last}, noticed {noticed}; asked: {relays}"));
    }
}

fn line(text: &mut String, content: &str) {
    writeln!(text, "{content}").expect("writing to a String does not fail");
}
