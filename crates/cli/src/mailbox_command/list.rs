//! `restante mailbox list`.

use restante_federation_proto::{Clock as _, SystemClock, Timestamp};
use serde::Deserialize;
use serde_json::Value;

use super::pages::{self, Listed};
use crate::admin_client::AdminClient;
use crate::amounts_text::{bytes, length};
use crate::table::{Align, Table};

/// One mailbox, as the relay lists it.
#[derive(Debug, Deserialize)]
pub(super) struct MailboxLine {
    pub(super) recipient: String,
    pub(super) envelopes: u64,
    pub(super) bytes: u64,
    pub(super) oldest_at: Option<Timestamp>,
    pub(super) quarantined: u64,
    pub(super) held: bool,
    pub(super) registered: bool,
    pub(super) acknowledged_total: u64,
    #[serde(default)]
    pub(super) delivered_total: u64,
    #[serde(default)]
    pub(super) passed_on_total: u64,
    #[serde(default)]
    pub(super) withdrawn_total: u64,
    pub(super) expired_total: u64,
    pub(super) dropped_total: u64,
}

pub(super) async fn run(client: &AdminClient, limit: usize, as_json: bool) -> anyhow::Result<()> {
    let listed = pages::first(client, "/mailboxes", limit).await?;
    if as_json {
        println!("{}", serde_json::to_string_pretty(&listed.items)?);
    } else {
        print!("{}", render(listed, SystemClock.now())?);
    }
    Ok(())
}

fn render(listed: Listed, now: Timestamp) -> anyhow::Result<String> {
    if listed.items.is_empty() {
        return Ok("no mailboxes yet; invite a server with: restante mailbox invite\n".to_owned());
    }
    let mut table = Table::new([
        ("MAILBOX", Align::Left),
        ("WAITING", Align::Right),
        ("SIZE", Align::Right),
        ("OLDEST", Align::Right),
        ("COLLECTED", Align::Right),
        ("DELIVERED", Align::Right),
        ("EXPIRED", Align::Right),
        ("DROPPED", Align::Right),
        ("STATE", Align::Left),
    ]);
    for item in listed.items {
        let line: MailboxLine = serde_json::from_value(item)?;
        table.row([
            line.recipient.clone(),
            line.envelopes.to_string(),
            bytes(line.bytes),
            line.oldest_at.map_or_else(|| "-".to_owned(), |oldest| length(now.since(oldest))),
            line.acknowledged_total.to_string(),
            (line.delivered_total + line.passed_on_total).to_string(),
            line.expired_total.to_string(),
            line.dropped_total.to_string(),
            line.state(),
        ]);
    }
    let mut text = table.render();
    if listed.goes_on {
        text.push_str("there may be more; --limit shows them\n");
    }
    Ok(text)
}

impl MailboxLine {
    /// What is particular about it, in words.
    pub(super) fn state(&self) -> String {
        let mut words =
            vec![if self.registered { "registered" } else { "not registered" }.to_owned()];
        if self.held {
            words.push("held".to_owned());
        }
        if self.quarantined > 0 {
            words.push(format!("{} damaged", self.quarantined));
        }
        words.join(", ")
    }
}

/// Reads one line.
pub(super) fn line(value: &Value) -> anyhow::Result<MailboxLine> {
    Ok(MailboxLine::deserialize(value)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_mailbox_shows_what_waits_and_for_how_long() {
        let items = vec![json!({
            "recipient": "b.example", "envelopes": 12, "bytes": 3_145_728, "oldest_at": 1_000,
            "quarantined": 1, "held": true, "registered": true, "acknowledged_total": 40,
            "delivered_total": 6, "passed_on_total": 1, "withdrawn_total": 0, "expired_total": 2, "dropped_total": 0,
        })];
        let now = Timestamp::from_millis(1_000 + 3 * 86_400_000);
        let text = render(Listed { items, goes_on: true }, now).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "MAILBOX    WAITING     SIZE  OLDEST  COLLECTED  DELIVERED  EXPIRED  DROPPED  STATE",
                "b.example       12  3.0 MiB     3 d         40          7        2        0  registered, held, 1 damaged",
                "there may be more; --limit shows them",
            ]
        );
        let text = render(Listed { items: Vec::new(), goes_on: false }, now).unwrap();
        assert!(text.ends_with("restante mailbox invite\n"), "{text}");
    }
}
