//! `restante node outbox`.

use restante_federation_proto::escape_path_segment;
use serde::Deserialize;

use crate::admin_client::AdminClient;
use crate::amounts_text::bytes;
use crate::args::OutboxOptions;
use crate::table::{Align, Table, printable};
use crate::time_text::time;

/// What the admin API answers to `GET /outbox`.
#[derive(Debug, Deserialize)]
struct Outbox {
    destinations: Vec<DestinationLine>,
    distrusted: Vec<DistrustedLine>,
}

#[derive(Debug, Deserialize)]
struct DestinationLine {
    server_name: String,
    unconfirmed: u64,
    copies: u64,
    bytes: u64,
    wanted: u64,
    oldest_at: Option<i64>,
}

/// A relay whose word does not count.
#[derive(Debug, Deserialize)]
pub(crate) struct DistrustedLine {
    destination: String,
    relay: String,
    since: i64,
    reason: String,
}

/// One transaction, of what it answers to `GET /outbox/{destination}`.
#[derive(Debug, Deserialize)]
struct LeftLine {
    seq: u64,
    txn_id: String,
    relays: Vec<HolderLine>,
    sent_directly_at: Option<i64>,
    confirmed_at: Option<i64>,
    confirmed_as: Option<String>,
    waits_since: Option<i64>,
    brought_by: Option<String>,
    errors: Option<ErrorsPart>,
    copy: String,
    copy_bytes: Option<u64>,
    wanted_since: Option<i64>,
    refused: Option<String>,
}

#[derive(Debug, Deserialize)]
struct HolderLine {
    server_name: String,
    since: i64,
    receipt: Option<serde_json::Value>,
    said: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ErrorsPart {
    count: u64,
}

/// Shows what was left.
pub(crate) async fn run(options: OutboxOptions) -> anyhow::Result<()> {
    let OutboxOptions { destination, all, limit, after, config, json } = options;
    let client = AdminClient::of_node(&config)?;
    let Some(destination) = destination else {
        let outbox = client.get("/outbox").await?;
        if json {
            println!("{}", serde_json::to_string_pretty(&outbox)?);
        } else {
            print!("{}", overview(&serde_json::from_value(outbox)?));
        }
        return Ok(());
    };
    let which = if all { "all" } else { "unconfirmed" };
    let server = escape_path_segment(destination.as_str());
    let target = format!("/outbox/{server}?which={which}&limit={limit}&after={after}");
    let lines = client.get(&target).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&lines)?);
    } else {
        print!("{}", transactions(&serde_json::from_value::<Vec<LeftLine>>(lines)?, limit));
    }
    Ok(())
}

fn overview(outbox: &Outbox) -> String {
    let mut text = distrusted(&outbox.distrusted);
    if outbox.destinations.is_empty() {
        text.push_str("everything that was left with relays is known to have arrived\n");
        return text;
    }
    let mut table = Table::new([
        ("DESTINATION", Align::Left),
        ("UNCONFIRMED", Align::Right),
        ("COPIES", Align::Right),
        ("SIZE", Align::Right),
        ("HELD BY NOBODY", Align::Right),
        ("OLDEST", Align::Left),
    ]);
    for line in &outbox.destinations {
        table.row([
            line.server_name.clone(),
            line.unconfirmed.to_string(),
            line.copies.to_string(),
            bytes(line.bytes),
            line.wanted.to_string(),
            line.oldest_at.map_or_else(|| "-".to_owned(), time),
        ]);
    }
    text.push_str(&table.render());
    text
}

/// What is to be done about relays whose word does not count.
pub(crate) fn distrusted(lines: &[DistrustedLine]) -> String {
    let line = |line: &DistrustedLine| {
        let DistrustedLine { destination, relay, reason, .. } = line;
        let text = format!(
            "relay {relay} lost mail for {destination} again and again ({reason}): since {} its word does not count as sent, \
             until mail arrives through it, or it keeps what it gets a day later. Ask its operator, name another \
             (restante relays add {destination} RELAY), or say that its word counts: restante relays trust {destination} {relay}",
            time(line.since)
        );
        printable(&text) + "\n"
    };
    lines.iter().map(line).collect()
}

fn transactions(lines: &[LeftLine], limit: u32) -> String {
    if lines.is_empty() {
        return "nothing of that kind was left\n".to_owned();
    }
    let mut table = Table::new([
        ("NUMBER", Align::Right),
        ("TRANSACTION", Align::Left),
        ("LEFT WITH", Align::Left),
        ("SINCE", Align::Left),
        ("BECAME OF IT", Align::Left),
        ("COPY", Align::Left),
    ]);
    let dash = || "-".to_owned();
    for line in lines {
        let relays: Vec<String> = line.relays.iter().map(holder).collect();
        let since = line.relays.iter().map(|relay| relay.since).min();
        table.row([
            line.seq.to_string(),
            line.txn_id.clone(),
            if relays.is_empty() { dash() } else { relays.join(", ") },
            since.map_or_else(dash, time),
            fate(line),
            line.copy_bytes.map_or_else(|| line.copy.clone(), bytes),
        ]);
    }
    let mut text = table.render();
    if lines.len() as u64 >= u64::from(limit) {
        let last = lines.last().map_or(0, |line| line.seq);
        text.push_str(&format!("there may be more: --after {last} shows them\n"));
    }
    text
}

fn holder(relay: &HolderLine) -> String {
    let mut notes = Vec::new();
    if relay.receipt.is_some() {
        notes.push("receipt");
    }
    match relay.said.as_deref() {
        Some("held") => notes.push("holds it"),
        Some("gone") => notes.push("handed it over"),
        _ => {}
    }
    match notes.is_empty() {
        true => relay.server_name.clone(),
        false => format!("{} ({})", relay.server_name, notes.join(", ")),
    }
}

fn fate(line: &LeftLine) -> String {
    let errors = line.errors.as_ref().filter(|errors| errors.count > 0);
    let errors = errors.map(|errors| format!(", {} events not taken", errors.count));
    let errors = errors.unwrap_or_default();
    match (line.confirmed_at, line.sent_directly_at) {
        (Some(at), _) => {
            let by = line.brought_by.as_ref().map(|relay| format!(" by {relay}"));
            let what = line.confirmed_as.as_deref().unwrap_or("delivered");
            format!("{what}{} {}{errors}", by.unwrap_or_default(), time(at))
        }
        (None, Some(at)) => format!("sent directly {}{errors}", time(at)),
        (None, None) => match (&line.refused, line.wanted_since) {
            _ if line.waits_since.is_some() => waits(line),
            (Some(refused), _) => format!("refused: {refused}"),
            (None, Some(since)) => format!("no relay has it since {}: to be sent", time(since)),
            (None, None) => "not confirmed".to_owned(),
        },
    }
}

fn waits(line: &LeftLine) -> String {
    let since = line.waits_since.map(time).unwrap_or_default();
    format!("events wait at its recipient's node since {since} for what they follow")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_destination_is_shown_with_what_is_not_confirmed_and_which_relay_lost_mail() {
        let outbox = json!({
            "destinations": [{ "server_name": "b.test", "unconfirmed": 3, "copies": 2, "bytes": 2048, "wanted": 1,
                               "oldest_at": 1_700_000_000_000_u64 }],
            "distrusted": [{ "destination": "b.test", "relay": "r.test", "since": 0, "reason": "gone\u{1b}[2J" }],
            "totals": {},
        });
        let text = overview(&serde_json::from_value(outbox).unwrap());
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("relay r.test lost mail for b.test"), "{text}");
        assert!(!text.contains('\u{1b}'));
        let cells: Vec<_> = lines[2].split_whitespace().collect();
        assert_eq!(cells, ["b.test", "3", "2", "2.0", "KiB", "1", "2023-11-14T22:13:20Z"]);
        let nothing = overview(&Outbox { destinations: vec![], distrusted: vec![] });
        assert!(nothing.contains("is known to have arrived"));
    }

    #[test]
    fn each_transaction_says_where_it_lies_and_what_became_of_it() {
        let at = 1_700_000_000_000_u64;
        let holder = json!({ "server_name": "r.test", "since": at, "receipt": {}, "asked_at": at, "said": "held" });
        let line = |seq: u64, rest: serde_json::Value| {
            let mut line = json!({ "seq": seq, "txn_id": "t", "relays": [holder], "copy": "kept", "copy_bytes": 10 });
            line.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            line
        };
        let lines = json!([
            line(1, json!({})),
            line(
                2,
                json!({ "confirmed_at": at, "confirmed_as": "parked", "brought_by": "r.test", "errors": { "count": 2 },
                            "copy": "not needed", "copy_bytes": null })
            ),
            line(3, json!({ "sent_directly_at": at, "copy": "not needed", "copy_bytes": null })),
            line(4, json!({ "relays": [], "wanted_since": at })),
            line(5, json!({ "copy": "gone", "copy_bytes": null, "refused": "403" })),
            line(6, json!({ "waits_since": at })),
        ]);
        let text = transactions(&serde_json::from_value::<Vec<LeftLine>>(lines).unwrap(), 6);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].contains("r.test (receipt, holds it)"), "{text}");
        assert!(lines[1].contains("not confirmed") && lines[1].ends_with("10 B"), "{text}");
        assert!(lines[2].contains("parked by r.test 2023-11-14T22:13:20Z, 2 events not taken"));
        assert!(lines[3].contains("sent directly 2023"), "{text}");
        assert!(lines[4].contains("no relay has it since 2023"), "{text}");
        assert!(lines[5].contains("refused: 403") && lines[5].ends_with("gone"), "{text}");
        assert!(lines[6].contains("events wait at its recipient's node since 2023"), "{text}");
        assert_eq!(lines[7], "there may be more: --after 6 shows them");
    }
}
