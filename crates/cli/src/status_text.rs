//! A node's status as text for a person.

use std::fmt::Write as _;

use serde::Deserialize;

use crate::outbox_command::{DistrustedLine, distrusted};
use crate::table::printable;
use crate::time_text::time;

/// What the admin API answers to `GET /status`.
#[derive(Debug, Deserialize)]
pub(crate) struct Status {
    server_name: String,
    relays: Vec<RelayLine>,
    relay_record: Option<OwnRecordLine>,
    destinations: Vec<DestinationLine>,
    refusals: Vec<RefusalLine>,
    #[serde(default)]
    distrusted: Vec<DistrustedLine>,
    #[serde(default)]
    losses: Vec<LossLine>,
    inbox: InboxPart,
}

#[derive(Debug, Deserialize)]
struct RelayLine {
    server_name: String,
    url: Option<String>,
    last_collect_at: Option<i64>,
    last_error: Option<String>,
    #[serde(default)]
    held: bool,
    registration: Option<RegistrationPart>,
    leaving: Option<String>,
}

#[derive(Debug, Deserialize)]
struct OwnRecordLine {
    version: i64,
    relays: Vec<String>,
    file: Option<String>,
    file_problem: Option<String>,
    advice: Option<String>,
}

#[derive(Debug, Deserialize)]
struct RegistrationPart {
    state: String,
    at: i64,
    reason: Option<String>,
    advice: Option<String>,
    granted: Option<Granted>,
}

#[derive(Debug, Deserialize)]
struct Granted {
    time_to_live_ms: u64,
}

#[derive(Debug, Deserialize)]
struct LossLine {
    relay: String,
    kind: String,
    origin: Option<String>,
    count: u64,
    bytes: u64,
    since: i64,
    until: i64,
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
    destination: Option<String>,
    reason: String,
    meaning: Option<String>,
    rests_until: Option<i64>,
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
    if let Some(record) = &status.relay_record {
        own_record(&mut text, record);
    }
    destinations(&mut text, &status.destinations);
    refusals(&mut text, &status.refusals);
    text.push_str(&distrusted(&status.distrusted));
    losses(&mut text, &status.losses);
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
        standing(text, relay);
    }
}

/// Whether the relay serves us, and what keeps it from handing mail over.
fn standing(text: &mut String, relay: &RelayLine) {
    if let Some(registration) = &relay.registration {
        line(text, &format!("    {}", registration_text(registration)));
    }
    if relay.held {
        line(
            text,
            "    the relay's operator holds our mailbox: it takes mail and hands none over until it is released",
        );
    }
    match relay.leaving.as_deref() {
        Some("keep") => line(text, "    being left: what it holds is collected first"),
        Some(_) => line(text, "    being left: it is to be told"),
        None => {}
    }
}

fn registration_text(registration: &RegistrationPart) -> String {
    let at = time(registration.at);
    let reason = registration.reason.as_deref().unwrap_or("it does not say why");
    match registration.state.as_str() {
        "registered" => {
            let days = registration.granted.as_ref().map(|granted| granted.time_to_live_ms);
            let kept = days.map(|time| format!(", mail is kept for {}", length(time)));
            format!("registered {at}{}", kept.unwrap_or_default())
        }
        "not_offered" => {
            "takes no registrations; whether it serves us, collecting shows".to_owned()
        }
        "refused" => {
            let advice = registration.advice.as_deref().unwrap_or("ask its operator");
            format!("refuses to serve us ({at}): {reason}; {advice}")
        }
        _ => format!("could not be asked to serve us ({at}), which is tried again: {reason}"),
    }
}

/// A length of time in days, or in hours where it is short.
fn length(millis: u64) -> String {
    const HOUR: u64 = 3_600_000;
    if millis >= 48 * HOUR {
        format!("{} days", millis / (24 * HOUR))
    } else {
        format!("{} hours", millis.div_ceil(HOUR))
    }
}

fn losses(text: &mut String, losses: &[LossLine]) {
    if losses.is_empty() {
        return;
    }
    line(text, "\nmail for us that relays say was lost");
    for loss in losses.iter().take(ENVELOPES_SHOWN_MAX) {
        let how = match loss.kind.as_str() {
            "mailbox_full" => "turned away, our mailbox was full",
            "share_full" => "turned away, the sender's share of our mailbox was full",
            "relay_full" => "turned away, the relay was full",
            "turned_away" => "turned away",
            "expired" => "expired before we collected it",
            "dropped" => "dropped by the relay's operator",
            other => other,
        };
        let origin = loss.origin.as_deref().unwrap_or("other senders");
        let LossLine { relay, count, bytes, since, until, .. } = loss;
        let (since, until) = (time(*since), time(*until));
        line(
            text,
            &format!(
                "  {origin} at {relay}, {since} to {until}: {count} times, {bytes} bytes, {how}"
            ),
        );
    }
    if losses.len() > ENVELOPES_SHOWN_MAX {
        line(text, &format!("  and {} more; --json shows all", losses.len() - ENVELOPES_SHOWN_MAX));
    }
}

fn own_record(text: &mut String, record: &OwnRecordLine) {
    let named = if record.relays.is_empty() { "none".to_owned() } else { record.relays.join(", ") };
    line(
        text,
        &format!(
            "\nrelays that others find for this server, since {}: {named}",
            time(record.version)
        ),
    );
    match (&record.file, &record.file_problem) {
        (Some(file), Some(problem)) => {
            let advice = record.advice.as_deref().unwrap_or_default();
            line(text, &format!("  {file} can't be written: {problem}; {advice}"));
        }
        (Some(file), None) => line(text, &format!("  written to {file}")),
        (None, _) => {}
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
        let destination = refusal.destination.as_ref();
        let whose = destination.map(|name| format!(" for {name}")).unwrap_or_default();
        line(text, &format!("  {relay}{whose}, {at}, {lasting}: {reason}"));
        if let Some(meaning) = &refusal.meaning {
            line(text, &format!("    {meaning}"));
        }
        if let Some(until) = refusal.rests_until {
            line(text, &format!("    it is not asked again before {}", time(until)));
        }
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

/// One line, or a heading after an empty one; names and reasons in it are strangers' words.
fn line(text: &mut String, content: &str) {
    let content = match content.strip_prefix('\n') {
        Some(heading) => format!("\n{}", printable(heading)),
        None => printable(content),
    };
    writeln!(text, "{content}").expect("writing to a String does not fail");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_stands_in_the_way_of_mail_is_said_with_what_to_do() {
        let status = json!({
            "server_name": "b.example",
            "relays": [
                { "server_name": "r1.example", "url": null, "last_collect_at": null, "last_error": null, "held": true,
                  "registration": { "state": "refused", "at": 0, "reason": "no invite", "advice": "ask for one" } },
                { "server_name": "r2.example", "url": null, "last_collect_at": 0, "last_error": null, "leaving": "keep",
                  "registration": { "state": "registered", "at": 0, "granted": { "time_to_live_ms": 2_592_000_000_u64 } } },
            ],
            "relay_record": { "version": 0, "relays": ["r2.example"], "file": "/var/www/restante",
                              "file_problem": "Permission denied", "advice": "let it write there" },
            "destinations": [],
            "refusals": [{ "relay": "r1.example", "destination": "c.example", "reason": "429", "meaning": "it is full",
                           "rests_until": 0, "lasting": "temporary", "at": 0 }],
            "losses": [{ "relay": "r1.example", "kind": "expired", "origin": null, "count": 3, "bytes": 9, "since": 0,
                         "until": 0 }],
            "inbox": { "waiting": [], "backlog": [], "missing": [], "events_parked_total": 0, "confirmed_total": 0,
                       "parked_total": 0, "dropped_total": 0 },
        });
        let text = render(&serde_json::from_value(status).unwrap());
        for said in [
            "no invite; ask for one",
            "holds our mailbox",
            "mail is kept for 30 days",
            "what it holds is collected first",
            "since 1970-01-01T00:00:00Z: r2.example",
            "/var/www/restante can't be written: Permission denied; let it write there",
            "r1.example for c.example",
            "it is full",
            "not asked again before",
            "other senders at r1.example",
            "3 times, 9 bytes, expired before we collected it",
        ] {
            assert!(text.contains(said), "{said}\n{text}");
        }
    }

    #[test]
    fn what_strangers_say_can_not_steer_the_terminal() {
        let evil = "\u{1b}[2J\nforged";
        let status = json!({
            "server_name": "b.example",
            "relays": [{ "server_name": "r.example", "url": null, "last_collect_at": 0, "last_error": evil,
                         "registration": { "state": "refused", "at": 0, "reason": evil } }],
            "destinations": [],
            "refusals": [{ "relay": "r.example", "destination": null, "reason": evil, "meaning": null,
                           "rests_until": null, "lasting": "temporary", "at": 0 }],
            "inbox": { "waiting": [{ "origin": "a.example", "txn_id": evil, "seq": null, "state": "parked", "reason": evil,
                                     "arrived_at": 0 }],
                       "backlog": [{ "room_id": evil, "waiting": 1, "unconfirmed": 0, "since": 0, "reason": evil }],
                       "missing": [], "events_parked_total": 0, "confirmed_total": 0, "parked_total": 1,
                       "dropped_total": 0 },
        });
        let text = render(&serde_json::from_value(status).unwrap());
        assert_eq!(text.matches("\\u{1b}[2J\\nforged").count(), 7, "{text}");
        assert!(text.lines().all(|line| !line.contains(char::is_control)), "{text:?}");
        assert!(text.contains("\n\nrelays that hold our mail\n"), "{text}");
    }
}
