//! `restante node parked`.

use std::fmt::Write as _;

use http::Method;
use restante_federation_proto::escape_path_segment;
use serde::Deserialize;
use serde_json::Value;

use crate::admin_client::AdminClient;
use crate::args::ParkedAction;
use crate::table::printable;
use crate::time_text::time;

/// What the admin API answers to `GET /parked`.
#[derive(Debug, Deserialize)]
struct Parked {
    id: String,
    origin: String,
    txn_id: String,
    seq: Option<u64>,
    state: String,
    reason: Option<String>,
    relay: String,
    arrived_at: i64,
    bytes: u64,
}

/// Carries out one command on the running node.
pub(crate) async fn run(action: ParkedAction) -> anyhow::Result<()> {
    match action {
        ParkedAction::List { limit, config, json } => {
            let client = AdminClient::of_node(&config)?;
            let parked = client.get(&format!("/parked?limit={limit}")).await?;
            if json {
                println!("{}", serde_json::to_string_pretty(&parked)?);
            } else {
                print!("{}", render(&serde_json::from_value::<Vec<Parked>>(parked)?, limit));
            }
        }
        ParkedAction::Show { id, config } => {
            let client = AdminClient::of_node(&config)?;
            let shown = client.get(&target(&id)).await?;
            println!("{}", serde_json::to_string_pretty(&shown)?);
        }
        ParkedAction::Retry { id: Some(id), config, .. } => {
            let client = AdminClient::of_node(&config)?;
            let target = format!("{}/retry", target(&id));
            let retried = client.call(Method::POST, &target, Vec::new()).await?;
            println!("{id} {}", retried["now"].as_str().unwrap_or("is tried again"));
        }
        ParkedAction::Retry { id: None, config, .. } => {
            let client = AdminClient::of_node(&config)?;
            let all = client.call(Method::POST, "/parked/retry", Vec::new()).await?;
            println!("{}", retried_all(&all));
        }
        ParkedAction::Drop { id, config } => {
            let client = AdminClient::of_node(&config)?;
            client.call(Method::DELETE, &target(&id), Vec::new()).await?;
            println!("{id} is gone for good");
        }
    }
    Ok(())
}

fn target(id: &str) -> String {
    format!("/parked/{}", escape_path_segment(id))
}

fn render(parked: &[Parked], limit: u32) -> String {
    if parked.is_empty() {
        return "nothing is parked\n".to_owned();
    }
    let mut text = String::new();
    for mail in parked {
        let seq = mail.seq.map(|seq| format!(" #{seq}")).unwrap_or_default();
        let reason = mail.reason.as_deref().unwrap_or("no reason was noted");
        let Parked { id, origin, txn_id, state, relay, bytes, .. } = mail;
        let arrived = time(mail.arrived_at);
        let what = format!("{origin} {txn_id}{seq}, {bytes} bytes, from {relay}, {arrived}");
        line(&mut text, &[id, state, &what]);
        line(&mut text, &["", reason]);
    }
    if parked.len() as u64 >= u64::from(limit) {
        line(&mut text, &["there may be more; --limit shows them"]);
    }
    text
}

fn retried_all(all: &Value) -> String {
    let count = |name: &str| all[name].as_u64().unwrap_or_default();
    match (count("retried"), count("refused")) {
        (0, 0) => "nothing is parked".to_owned(),
        (retried, 0) => format!("{retried} tried again"),
        (retried, refused) => format!(
            "{retried} tried again; {refused} can't be, see each reason with: restante node parked list"
        ),
    }
}

/// Fields with tabs between them; senders' and relays' words are among them.
fn line(text: &mut String, fields: &[&str]) {
    let fields: Vec<String> = fields.iter().map(|field| printable(field)).collect();
    writeln!(text, "{}", fields.join("\t")).expect("writing to a String does not fail");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_parked_envelope_shows_its_id_and_its_reason() {
        let parked = json!([{
            "id": "mail-17", "origin": "a.test", "txn_id": "t1", "seq": 4, "state": "parked",
            "reason": "the homeserver answered 403", "relay": "relay.test",
            "arrived_at": 1_700_000_000_000_u64, "bytes": 120,
        }]);
        let parked: Vec<Parked> = serde_json::from_value(parked).unwrap();
        let text = render(&parked, 200);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "mail-17\tparked\ta.test t1 #4, 120 bytes, from relay.test, 2023-11-14T22:13:20Z",
                "\tthe homeserver answered 403",
            ]
        );
        assert!(render(&parked, 1).ends_with("there may be more; --limit shows them\n"));
        assert_eq!(render(&[], 200), "nothing is parked\n");
    }

    #[test]
    fn a_sender_can_not_steer_the_terminal() {
        let parked = json!([{
            "id": "mail-17", "origin": "a.test", "txn_id": "t\u{1b}[2J\tparked", "seq": null, "state": "parked",
            "reason": "the homeserver answered\r\nmail-18", "relay": "relay.test", "arrived_at": 0, "bytes": 120,
        }]);
        let text = render(&serde_json::from_value::<Vec<Parked>>(parked).unwrap(), 200);
        assert!(text.contains("t\\u{1b}[2J\\tparked, 120 bytes"), "{text}");
        assert!(text.contains("\tthe homeserver answered\\r\\nmail-18\n"), "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    #[test]
    fn what_can_not_be_tried_again_is_counted() {
        assert_eq!(retried_all(&json!({ "retried": 0, "refused": 0 })), "nothing is parked");
        assert_eq!(retried_all(&json!({ "retried": 3, "refused": 0 })), "3 tried again");
        let text = retried_all(&json!({ "retried": 3, "refused": 1 }));
        assert!(text.starts_with("3 tried again; 1 can't be"), "{text}");
    }
}
