//! `restante mailbox show`.

use std::fmt::Write as _;
use std::time::Duration;

use restante_federation_proto::{Clock as _, ServerName, SystemClock, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::pages::{self, Listed};
use super::{list, target};
use crate::admin_client::AdminClient;
use crate::amounts_text::{bytes, envelopes, length};
use crate::table::{Align, Table, printable};
use crate::time_text::time;

/// What the relay tells of one mailbox beside its line in the list.
#[derive(Debug, Deserialize)]
struct Mailbox {
    registration: Option<Registration>,
    #[serde(default)]
    shares: Vec<Share>,
    #[serde(default)]
    losses: Vec<Loss>,
}

#[derive(Debug, Deserialize)]
struct Registration {
    senders: Value,
    time_to_live_ms: Option<u64>,
    registered_at: Timestamp,
}

#[derive(Debug, Deserialize)]
struct Share {
    origin: String,
    envelopes: u64,
    bytes: u64,
}

/// `kind` and `origin` as the relay's contract spells them.
#[derive(Debug, Deserialize)]
struct Loss {
    #[serde(alias = "reason")]
    kind: String,
    origin: Option<String>,
    count: u64,
    bytes: u64,
    since: Timestamp,
}

#[derive(Debug, Deserialize)]
struct EnvelopeLine {
    id: u64,
    origin: String,
    txn_id: String,
    deposited_at: Timestamp,
    expires_at: Timestamp,
    bytes: u64,
    quarantined: bool,
    #[serde(default)]
    onward: String,
}

pub(super) async fn run(
    client: &AdminClient,
    server: &ServerName,
    count: usize,
    as_json: bool,
) -> anyhow::Result<()> {
    let mut mailbox = client.get(&target(server, "")).await?;
    let listed = pages::first(client, &target(server, "/envelopes"), count).await?;
    if as_json {
        mailbox["oldest_envelopes"] = json!(listed.items);
        println!("{}", serde_json::to_string_pretty(&mailbox)?);
    } else {
        print!("{}", render(&mailbox, listed, SystemClock.now())?);
    }
    Ok(())
}

fn render(mailbox: &Value, listed: Listed, now: Timestamp) -> anyhow::Result<String> {
    let line = list::line(mailbox)?;
    let about = Mailbox::deserialize(mailbox)?;
    let mut text = format!("mailbox of {}: {}\n", printable(&line.recipient), line.state());
    let oldest = line
        .oldest_at
        .map(|at| format!(", the oldest for {}", length(now.since(at))))
        .unwrap_or_default();
    writeln!(text, "waiting: {}, {}{oldest}", envelopes(line.envelopes), bytes(line.bytes))?;
    writeln!(
        text,
        "so far: {} collected, {} expired, {} dropped",
        line.acknowledged_total, line.expired_total, line.dropped_total
    )?;
    if line.delivered_total + line.passed_on_total + line.withdrawn_total > 0 {
        writeln!(
            text,
            "delivered onward so far: {} to its homeserver, {} to another relay, {} taken back",
            line.delivered_total, line.passed_on_total, line.withdrawn_total
        )?;
    }
    registration(&mut text, about.registration.as_ref())?;
    shares(&mut text, &about.shares);
    losses(&mut text, &about.losses);
    oldest_envelopes(&mut text, listed, now)?;
    Ok(text)
}

fn registration(text: &mut String, registration: Option<&Registration>) -> anyhow::Result<()> {
    let Some(registration) = registration else {
        writeln!(text, "registration: none")?;
        return Ok(());
    };
    let kept = registration.time_to_live_ms.map(Duration::from_millis).map(length);
    let kept = kept.map_or_else(String::new, |kept| format!(", keeps mail for {kept}"));
    let at = registration.registered_at.as_millis();
    writeln!(text, "registered {}{kept}", time(i64::try_from(at).unwrap_or(i64::MAX)))?;
    let patterns = |name: &str| {
        let listed = registration.senders[name].as_array()?;
        let names: Vec<&str> = listed.iter().filter_map(Value::as_str).collect();
        (!names.is_empty()).then(|| printable(&names.join(" ")))
    };
    match patterns("allow") {
        Some(allowed) => writeln!(text, "mail may come from: {allowed}")?,
        None => writeln!(text, "mail may come from: anyone")?,
    }
    if let Some(blocked) = patterns("block") {
        writeln!(text, "but not from: {blocked}")?;
    }
    Ok(())
}

fn shares(text: &mut String, shares: &[Share]) {
    if shares.is_empty() {
        return;
    }
    let mut table =
        Table::new([("SENDER", Align::Left), ("WAITING", Align::Right), ("SIZE", Align::Right)]);
    for share in shares {
        table.row([share.origin.clone(), share.envelopes.to_string(), bytes(share.bytes)]);
    }
    text.push_str("\nwho fills it\n");
    text.push_str(&table.render());
}

fn losses(text: &mut String, losses: &[Loss]) {
    if losses.is_empty() {
        return;
    }
    let mut table = Table::new([
        ("LOST", Align::Left),
        ("SENDER", Align::Left),
        ("ENVELOPES", Align::Right),
        ("SIZE", Align::Right),
        ("SINCE", Align::Left),
    ]);
    for loss in losses {
        let since = time(i64::try_from(loss.since.as_millis()).unwrap_or(i64::MAX));
        let origin = loss.origin.clone().unwrap_or_else(|| "others".to_owned());
        let kind = loss.kind.replace('_', " ");
        table.row([kind, origin, loss.count.to_string(), bytes(loss.bytes), since]);
    }
    text.push_str("\nwhat its owner never got, and has not been told yet\n");
    text.push_str(&table.render());
}

fn oldest_envelopes(text: &mut String, listed: Listed, now: Timestamp) -> anyhow::Result<()> {
    if listed.items.is_empty() {
        return Ok(());
    }
    let mut table = Table::new([
        ("ENVELOPE", Align::Right),
        ("SENDER", Align::Left),
        ("TRANSACTION", Align::Left),
        ("SIZE", Align::Right),
        ("AGE", Align::Right),
        ("EXPIRES IN", Align::Right),
        ("", Align::Left),
    ]);
    for item in listed.items {
        let line: EnvelopeLine = serde_json::from_value(item)?;
        table.row([
            line.id.to_string(),
            line.origin,
            line.txn_id,
            bytes(line.bytes),
            length(now.since(line.deposited_at)),
            length(line.expires_at.since(now)),
            match (line.quarantined, line.onward.as_str()) {
                (true, _) => "damaged",
                (_, "wanted") => "to be delivered",
                (_, "refused") => "refused by its homeserver",
                _ => "",
            }
            .to_owned(),
        ]);
    }
    text.push_str("\noldest envelopes\n");
    text.push_str(&table.render());
    if listed.goes_on {
        text.push_str("there may be more; --envelopes shows them\n");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000;

    fn mailbox() -> Value {
        json!({
            "recipient": "b.example", "envelopes": 1, "bytes": 2048, "oldest_at": DAY,
            "quarantined": 0, "held": false, "registered": true, "acknowledged_total": 4,
            "expired_total": 0, "dropped_total": 0,
            "registration": {
                "record": {}, "senders": { "allow": ["*.example"], "block": ["spam.example"] },
                "time_to_live_ms": 7 * DAY, "registered_at": DAY,
            },
            "shares": [{ "origin": "a.example", "envelopes": 1, "bytes": 2048 }],
            "losses": [{
                "kind": "mailbox_full", "origin": null, "count": 3, "bytes": 4096, "since": DAY, "until": DAY,
            }],
        })
    }

    #[test]
    fn one_mailbox_shows_its_rules_who_fills_it_what_was_lost_and_its_oldest_mail() {
        let items = vec![
            json!({
                "id": 77, "origin": "a.example", "txn_id": "t\u{1b}1", "deposited_at": DAY,
                "expires_at": 8 * DAY, "bytes": 2048, "quarantined": true,
            }),
            json!({
                "id": 78, "origin": "c.example", "txn_id": "t2", "deposited_at": DAY,
                "expires_at": 8 * DAY, "bytes": 1024, "quarantined": false, "onward": "refused",
            }),
        ];
        let listed = Listed { items, goes_on: false };
        let text = render(&mailbox(), listed, Timestamp::from_millis(4 * DAY)).unwrap();
        for expected in [
            "mailbox of b.example: registered\n",
            "waiting: 1 envelope, 2.0 KiB, the oldest for 3 d\n",
            "registered 1970-01-02T00:00:00Z, keeps mail for 7 d\n",
            "mail may come from: *.example\nbut not from: spam.example\n",
            "a.example        1  2.0 KiB\n",
            "mailbox full  others          3  4.0 KiB  1970-01-02T00:00:00Z\n",
            "77  a.example  t\\u{1b}1     2.0 KiB  3 d         4 d  damaged\n",
            "78  c.example  t2           1.0 KiB  3 d         4 d  refused by its homeserver\n",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
    }
}
