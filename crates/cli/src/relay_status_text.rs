//! A relay's status as text for a person. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::amounts_text::{bytes, envelopes, length};
use crate::table::printable;

/// What the admin API answers to `GET /status`.
#[derive(Debug, Deserialize)]
pub(crate) struct RelayStatus {
    server_name: String,
    version: String,
    serve: String,
    uptime_ms: u64,
    totals: Totals,
    disk: Disk,
    waiting_collects: u64,
    #[serde(default)]
    onward_destinations: u64,
    connections: u64,
    #[serde(default)]
    at_rest: AtRest,
    ready: Ready,
}

#[derive(Debug, Deserialize)]
struct Totals {
    mailboxes: u64,
    envelopes: u64,
    bytes: u64,
    quarantined: u64,
}

#[derive(Debug, Deserialize)]
struct Disk {
    free_bytes: Option<u64>,
    low: bool,
}

#[derive(Debug, Default, Deserialize)]
struct AtRest {
    #[serde(default)]
    keys: Vec<KeyLine>,
}

#[derive(Debug, Deserialize)]
struct KeyLine {
    id: String,
    envelopes: u64,
}

#[derive(Debug, Deserialize)]
struct Ready {
    ready: bool,
    #[serde(default)]
    not_met: Vec<NotMet>,
}

#[derive(Debug, Deserialize)]
struct NotMet {
    condition: String,
    problem: String,
    what_to_do: String,
}

/// The whole status.
pub(crate) fn render(status: &Value) -> anyhow::Result<String> {
    let status = RelayStatus::deserialize(status)?;
    let mut text = String::new();
    let uptime = length(Duration::from_millis(status.uptime_ms));
    writeln!(text, "relay {}, version {}, up for {uptime}", status.server_name, status.version)?;
    ready(&mut text, &status.ready)?;
    writeln!(text, "serves      {}", served(&status.serve))?;
    let Totals { mailboxes, envelopes: waiting, bytes: size, quarantined } = status.totals;
    writeln!(text, "mailboxes   {mailboxes}")?;
    writeln!(text, "waiting     {}, {}", envelopes(waiting), bytes(size))?;
    if quarantined > 0 {
        writeln!(text, "damaged     {}, set aside; see each mailbox", envelopes(quarantined))?;
    }
    if status.onward_destinations > 0 {
        writeln!(text, "onward      to {}", servers(status.onward_destinations))?;
    }
    let free = status.disk.free_bytes.map_or_else(|| "unknown".to_owned(), bytes);
    let low =
        if status.disk.low { "; too low: no new mail is taken until there is more" } else { "" };
    writeln!(text, "disk        {free} free{low}")?;
    let (connections, collects) = (status.connections, status.waiting_collects);
    writeln!(text, "connections {connections}, of which {collects} wait for mail")?;
    for (index, KeyLine { id, envelopes: sealed }) in status.at_rest.keys.iter().enumerate() {
        let label = if index == 0 { "sealed with" } else { "           " };
        writeln!(text, "{label} {}: {}", printable(id), envelopes(*sealed))?;
    }
    Ok(text)
}

fn ready(text: &mut String, ready: &Ready) -> std::fmt::Result {
    if ready.ready {
        return writeln!(text, "ready");
    }
    writeln!(text, "NOT READY")?;
    for NotMet { condition, problem, what_to_do } in &ready.not_met {
        writeln!(
            text,
            "  {condition}: {}\n    what to do: {}",
            printable(problem),
            printable(what_to_do)
        )?;
    }
    Ok(())
}

fn servers(count: u64) -> String {
    if count == 1 { "1 server".to_owned() } else { format!("{count} servers") }
}

fn served(serve: &str) -> String {
    match serve {
        "open" => "open: whoever asks".to_owned(),
        "invited" => "invited: who has an invite (restante mailbox invite)".to_owned(),
        "listed" => "listed: the servers in the configuration".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status() -> Value {
        json!({
            "server_name": "relay.example", "version": "0.1.0", "serve": "invited", "uptime_ms": 7_200_000,
            "totals": { "mailboxes": 2, "envelopes": 1, "bytes": 2048, "quarantined": 0 },
            "disk": { "free_bytes": 1_073_741_824_u64, "low": false }, "waiting_collects": 3, "connections": 5,
            "at_rest": { "keys": [] }, "ready": { "ready": true, "not_met": [] },
        })
    }

    #[test]
    fn a_relay_that_is_well_says_so_on_one_screen() {
        let text = render(&status()).unwrap();
        assert_eq!(
            text,
            "relay relay.example, version 0.1.0, up for 2 h\nready\n\
             serves      invited: who has an invite (restante mailbox invite)\nmailboxes   2\n\
             waiting     1 envelope, 2.0 KiB\ndisk        1.0 GiB free\n\
             connections 5, of which 3 wait for mail\n"
        );
    }

    #[test]
    fn what_is_wrong_comes_with_what_to_do() {
        let mut status = status();
        status["ready"] = json!({ "ready": false, "not_met": [
            { "condition": "storage", "problem": "read-only", "what_to_do": "mend the disk" },
        ] });
        status["disk"]["low"] = true.into();
        status["at_rest"] =
            json!({ "keys": [{ "id": "k2", "envelopes": 1 }, { "id": "k1", "envelopes": 9 }] });
        let text = render(&status).unwrap();
        for expected in [
            "NOT READY\n  storage: read-only\n    what to do: mend the disk\n",
            "too low: no new mail is taken",
            "sealed with k2: 1 envelope\n            k1: 9 envelopes\n",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
    }
}
