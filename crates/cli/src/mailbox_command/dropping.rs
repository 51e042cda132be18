//! `restante mailbox drop`: names what would be lost, asks, and then removes it.

use anyhow::{Context as _, bail};
use restante_federation_proto::ServerName;
use serde_json::{Value, json};

use super::{list, number, target};
use crate::admin_client::AdminClient;
use crate::amounts_text::{bytes, envelopes};
use crate::args::DroppedMail;
use crate::confirmation::{Consent, confirm};
use crate::table::printable;

/// Senders that the question names.
const SENDERS_NAMED_MAX: usize = 10;

pub(super) async fn run(
    client: &AdminClient,
    server: &ServerName,
    mail: &DroppedMail,
    consent: Consent,
) -> anyhow::Result<String> {
    let (loss, selection) = match mail {
        DroppedMail { envelope: Some(id), .. } => {
            (one_envelope(client, server, *id).await?, json!({ "id": id }))
        }
        DroppedMail { origin: Some(origin), .. } => {
            let mailbox = client.get(&target(server, "")).await?;
            (of_origin(&mailbox, origin)?, json!({ "origin": origin }))
        }
        _ => (everything(&client.get(&target(server, "")).await?)?, json!({ "all": true })),
    };
    confirm(&loss, consent)?;
    let dropped = client.post(&target(server, "/drop"), &selection).await?;
    let dropped = envelopes(number(&dropped, "dropped")?);
    Ok(format!("{dropped} for {server} dropped; it is told so when it collects"))
}

fn everything(mailbox: &Value) -> anyhow::Result<String> {
    let line = list::line(mailbox)?;
    let damaged = match line.quarantined {
        0 => String::new(),
        count => format!(" and {count} damaged"),
    };
    let senders = mailbox["shares"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names: Vec<String> = senders.iter().take(SENDERS_NAMED_MAX).map(share).collect();
    let others = match senders.len().saturating_sub(SENDERS_NAMED_MAX) {
        0 => String::new(),
        others => format!(" and {others} others"),
    };
    let from = if names.is_empty() {
        String::new()
    } else {
        format!(", from {}{others}", names.join(", "))
    };
    Ok(format!(
        "All mail for {} would be lost for good: {}{damaged}, {}{from}.",
        printable(&line.recipient),
        envelopes(line.envelopes),
        bytes(line.bytes)
    ))
}

fn share(share: &Value) -> String {
    let origin = share["origin"].as_str().unwrap_or("an unknown sender");
    format!("{} ({})", printable(origin), share["envelopes"].as_u64().unwrap_or_default())
}

fn of_origin(mailbox: &Value, origin: &ServerName) -> anyhow::Result<String> {
    let recipient = list::line(mailbox)?.recipient;
    let shares = mailbox["shares"].as_array().map(Vec::as_slice).unwrap_or_default();
    let share = shares.iter().find(|share| share["origin"] == origin.as_str());
    let Some(share) = share else {
        bail!("no mail from {origin} waits for {}", printable(&recipient))
    };
    Ok(format!(
        "All mail from {origin} for {} would be lost for good: {}, {}.",
        printable(&recipient),
        envelopes(number(share, "envelopes")?),
        bytes(number(share, "bytes")?)
    ))
}

async fn one_envelope(
    client: &AdminClient,
    server: &ServerName,
    id: u64,
) -> anyhow::Result<String> {
    let before = id.checked_sub(1).context("envelopes are numbered from 1")?;
    let page = client.get(&target(server, &format!("/envelopes?after={before}&limit=1"))).await?;
    let found = page["items"].get(0).filter(|found| found["id"] == id);
    let Some(found) = found else { bail!("{server} has no envelope {id}") };
    let text = |name: &str| printable(found[name].as_str().unwrap_or("?"));
    Ok(format!(
        "Envelope {id} for {server} would be lost for good: {} from {}, {}.",
        text("txn_id"),
        text("origin"),
        bytes(number(found, "bytes")?)
    ))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::mailbox::DropOptions;
    use crate::args::{Args, Command, MailboxAction};
    use crate::scripted_door::ScriptedDoor;

    const MAILBOX: &str = "/_restante/admin/v1/mailboxes/b.example";

    fn options(arguments: &[&str]) -> DropOptions {
        let command = ["restante", "mailbox", "drop", "b.example"];
        let args = Args::try_parse_from(command.iter().chain(arguments)).unwrap();
        match args.command {
            Command::Mailbox(MailboxAction::Drop(options)) => options,
            other => panic!("{other:?}"),
        }
    }

    async fn dropped(door: &ScriptedDoor, arguments: &[&str]) -> anyhow::Result<String> {
        let options = options(arguments);
        run(&door.client(), &options.server, &options.mail, options.consent).await
    }

    async fn door() -> ScriptedDoor {
        let door = ScriptedDoor::open().await;
        let mailbox = json!({
            "recipient": "b.example", "envelopes": 3, "bytes": 3000, "oldest_at": 1,
            "quarantined": 1, "held": false, "registered": true, "acknowledged_total": 0,
            "expired_total": 0, "dropped_total": 0, "registration": null, "losses": [],
            "shares": [
                { "origin": "a.example", "envelopes": 2, "bytes": 2000 },
                { "origin": "c.example", "envelopes": 1, "bytes": 1000 },
            ],
        });
        door.answer("GET", MAILBOX, 200, &mailbox.to_string());
        door.answer("POST", &format!("{MAILBOX}/drop"), 200, r#"{"dropped":2}"#);
        door
    }

    #[tokio::test]
    async fn without_a_terminal_and_without_consent_nothing_is_dropped_and_the_loss_is_named() {
        let door = door().await;
        let error = dropped(&door, &["--all"]).await.unwrap_err().to_string();
        let loss = "All mail for b.example would be lost for good: 3 envelopes and 1 damaged, 2.9 KiB, from a.example (2), c.example (1).";
        assert!(error.starts_with(loss), "{error}");
        assert!(error.ends_with("--yes"), "{error}");
        assert!(door.asked().iter().all(|asked| asked.method == "GET"));
    }

    #[tokio::test]
    async fn with_consent_exactly_the_named_mail_is_dropped() {
        let door = door().await;
        let text = dropped(&door, &["--origin", "a.example", "--yes"]).await.unwrap();
        assert!(text.starts_with("2 envelopes for b.example dropped"), "{text}");
        assert_eq!(door.asked().last().unwrap().body, r#"{"origin":"a.example"}"#);
        dropped(&door, &["--all", "--yes"]).await.unwrap();
        assert_eq!(door.asked().last().unwrap().body, r#"{"all":true}"#);
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_dropped() {
        let door = door().await;
        let error = dropped(&door, &["--origin", "d.example", "--yes"]).await.unwrap_err();
        assert_eq!(error.to_string(), "no mail from d.example waits for b.example");
        let page =
            r#"{"items":[{"id":9,"origin":"a.example","txn_id":"t","bytes":1}],"next":null}"#;
        door.answer("GET", &format!("{MAILBOX}/envelopes?after=6&limit=1"), 200, page);
        let error = dropped(&door, &["--envelope", "7", "--yes"]).await.unwrap_err();
        assert_eq!(error.to_string(), "b.example has no envelope 7");
        door.answer("GET", &format!("{MAILBOX}/envelopes?after=8&limit=1"), 200, page);
        dropped(&door, &["--envelope", "9", "--yes"]).await.unwrap();
        assert_eq!(door.asked().last().unwrap().body, r#"{"id":9}"#);
    }

    #[test]
    fn which_mail_is_meant_must_be_said_and_said_once() {
        let command = ["restante", "mailbox", "drop", "b.example", "--yes"];
        assert!(Args::try_parse_from(command).is_err());
        let both = command.iter().chain(&["--all", "--envelope", "7"]);
        assert!(Args::try_parse_from(both).is_err());
    }
}
