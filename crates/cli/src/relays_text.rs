//! Who holds whose mail, as text for a person.

use serde::Deserialize;

use crate::table::{Align, Table};
use crate::time_text::time;

/// One relay of one server, as the admin API answers to `GET /relays`.
#[derive(Debug, Deserialize)]
pub(crate) struct RelayLine {
    server: String,
    server_name: String,
    url: Option<String>,
    source: String,
    #[serde(default = "yes")]
    in_force: bool,
    #[serde(default)]
    outgoing: bool,
    distrusted_since: Option<i64>,
    priority: Option<u32>,
    learned_from: Option<String>,
    learned_at: Option<i64>,
    version: Option<i64>,
}

/// What an older node does not say.
fn yes() -> bool {
    true
}

/// A line for each relay, with where the knowledge came from.
pub(crate) fn text(relays: &[RelayLine]) -> String {
    if relays.is_empty() {
        return "no relays are known; name one with: restante relays add SERVER RELAY --url URL\n"
            .to_owned();
    }
    let mut table = Table::new([
        ("SERVER", Align::Left),
        ("RELAY", Align::Left),
        ("URL", Align::Left),
        ("PRIORITY", Align::Right),
        ("SOURCE", Align::Left),
        ("SINCE", Align::Left),
        ("VERSION", Align::Left),
    ]);
    let dash = || "-".to_owned();
    for relay in relays {
        table.row([
            relay.server.clone(),
            relay.server_name.clone(),
            relay.url.clone().unwrap_or_else(dash),
            relay.priority.map_or_else(dash, |priority| priority.to_string()),
            source(relay),
            relay.learned_at.map_or_else(dash, time),
            relay.version.map_or_else(dash, time),
        ]);
    }
    table.render()
}

fn source(relay: &RelayLine) -> String {
    let source = match relay.learned_from.as_deref() {
        None => relay.source.clone(),
        Some("well-known") => "its record, from its web site".to_owned(),
        Some("server") => "its record, from its node".to_owned(),
        Some("mail") => "its record, from its mail".to_owned(),
        Some(relay) => format!("its record, from {relay}"),
    };
    let source = if relay.outgoing { format!("{source}, outgoing") } else { source };
    match (relay.in_force, relay.distrusted_since) {
        (true, None) => source,
        (true, Some(since)) => {
            format!("{source} (lost mail: its word does not count since {})", time(since))
        }
        (false, _) => format!("{source} (not used: the operator named others)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_relay_is_shown_with_where_the_knowledge_came_from() {
        let relays = serde_json::json!([
            { "server": "a.test", "server_name": "r.test", "url": "http://127.0.0.1:1", "source": "operator", "in_force": true, "outgoing": true },
            { "server": "b.test", "server_name": "s.test", "url": null, "source": "record", "in_force": true,
              "priority": 1, "learned_from": "relay r.test", "learned_at": 1_700_000_000_000_u64, "version": 1_600_000_000_000_u64 },
            { "server": "c.test", "server_name": "t.test", "url": "x\u{1b}[2J", "source": "record", "in_force": false,
              "priority": 0, "learned_from": "well-known", "learned_at": 0, "version": 0 },
        ]);
        let text = text(&serde_json::from_value::<Vec<RelayLine>>(relays).unwrap());
        let lines: Vec<_> = text
            .lines()
            .map(|line| {
                line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(
            lines[1],
            ["a.test", "r.test", "http://127.0.0.1:1", "-", "operator, outgoing", "-", "-"]
        );
        assert_eq!(lines[2][..5], ["b.test", "s.test", "-", "1", "its record, from relay r.test"]);
        assert!(lines[2][5].starts_with("2023-11-14") && lines[2][6].starts_with("2020-09-13"));
        assert!(text.contains("from its web site (not used"), "{text}");
        assert!(!text.contains('\u{1b}'));
    }
}
