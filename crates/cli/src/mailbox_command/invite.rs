//! `restante mailbox invite`, `invites` and `revoke`.

use std::io::{self, IsTerminal as _};

use anyhow::Context as _;
use http::Method;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use restante_federation_proto::escape_path_segment;
use serde::Deserialize;
use serde_json::{Value, json};

use super::pages;
use crate::admin_client::AdminClient;
use crate::args::InviteOptions;
use crate::table::{Align, Table};
use crate::time_text::time;

/// Invites that are listed; a relay bounds how many there are.
const INVITES_MAX: usize = 100_000;

/// One invite, as the relay lists it.
#[derive(Debug, Deserialize)]
struct InviteLine {
    id: Value,
    server: Option<String>,
    expires_at: i64,
    #[serde(default)]
    note: String,
}

/// Makes one. A script gets the line alone.
pub(super) async fn make(client: &AdminClient, options: &InviteOptions) -> anyhow::Result<()> {
    let made = ask(client, options).await?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&made)?);
        return Ok(());
    }
    let line = made["line"].as_str().context("the relay's answer has no line")?;
    println!("{line}");
    if io::stdout().is_terminal() {
        if !options.no_qr {
            println!("\n{}", qr(line)?);
        }
        println!("\n{}", what_next(&made, options));
    }
    Ok(())
}

async fn ask(client: &AdminClient, options: &InviteOptions) -> anyhow::Result<Value> {
    let expires = u64::try_from(options.expires.as_millis()).context("--expires is too long")?;
    let wanted =
        json!({ "server": options.server, "expires_in_ms": expires, "note": options.note });
    client.post("/invites", &wanted).await
}

fn what_next(made: &Value, options: &InviteOptions) -> String {
    let whom = options
        .server
        .as_ref()
        .map_or_else(|| "one server".to_owned(), |server| format!("{server} alone"));
    let until =
        made["expires_at"].as_i64().map_or_else(String::new, |at| format!(" until {}", time(at)));
    format!(
        "It lets {whom} register{until}, once. Its operator runs, beside the node:\n  restante relays join LINE"
    )
}

/// The code for a camera, dark on light whatever the terminal's colours: it brings its own quiet border.
fn qr(line: &str) -> anyhow::Result<String> {
    let code =
        QrCode::new(line.as_bytes()).context("the line is too long for a QR code; use --no-qr")?;
    Ok(code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .quiet_zone(true)
        .build())
}

/// Shows those that nobody has used.
pub(super) async fn list(client: &AdminClient, as_json: bool) -> anyhow::Result<()> {
    let invites = pages::first(client, "/invites", INVITES_MAX).await?.items;
    if as_json {
        println!("{}", serde_json::to_string_pretty(&invites)?);
    } else {
        print!("{}", render(invites)?);
    }
    Ok(())
}

fn render(invites: Vec<Value>) -> anyhow::Result<String> {
    if invites.is_empty() {
        return Ok("no invites are open; make one with: restante mailbox invite\n".to_owned());
    }
    let mut table = Table::new([
        ("INVITE", Align::Left),
        ("FOR", Align::Left),
        ("GOOD UNTIL", Align::Left),
        ("NOTE", Align::Left),
    ]);
    for invite in invites {
        let invite: InviteLine = serde_json::from_value(invite)?;
        table.row([
            id_text(&invite.id),
            invite.server.unwrap_or_else(|| "anyone".to_owned()),
            time(invite.expires_at),
            invite.note,
        ]);
    }
    Ok(table.render())
}

fn id_text(id: &Value) -> String {
    id.as_str().map_or_else(|| id.to_string(), str::to_owned)
}

pub(super) async fn revoke(client: &AdminClient, id: &str) -> anyhow::Result<String> {
    let target = format!("/invites/{}", escape_path_segment(id));
    client.call(Method::DELETE, &target, Vec::new()).await?;
    Ok(format!("nobody can use the invite {id} any more"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Args, Command, MailboxAction};
    use crate::scripted_door::ScriptedDoor;

    const LINE: &str = "restante-invite:relay.example?token=abcdefghijklmnopqrstuvwxyz0123456789";

    #[tokio::test]
    async fn an_invite_is_asked_for_as_the_operator_says() {
        let door = ScriptedDoor::open().await;
        let answer = json!({ "id": "i1", "line": LINE, "expires_at": 1 });
        door.answer("POST", "/_restante/admin/v1/invites", 200, &answer.to_string());
        let arguments = "restante mailbox invite --server b.example --expires 2d --note friend";
        let args = Args::try_parse_from(arguments.split(' ')).unwrap();
        let Command::Mailbox(MailboxAction::Invite(options)) = args.command else {
            panic!("{args:?}")
        };
        let made = ask(&door.client(), &options).await.unwrap();
        let body: Value = serde_json::from_str(&door.asked()[0].body).unwrap();
        let expected =
            json!({ "server": "b.example", "expires_in_ms": 172_800_000, "note": "friend" });
        assert_eq!(body, expected);
        let text = what_next(&made, &options);
        assert!(text.starts_with("It lets b.example alone register until 1970-"), "{text}");
    }

    #[test]
    fn a_qr_code_is_square_and_has_a_border() {
        let text = qr(LINE).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let width = lines[0].chars().count();
        // Two rows of modules make one line of text.
        assert_eq!(width.div_ceil(2), lines.len());
        assert!(lines[0].chars().all(|module| module == '█'), "{text}");
        assert!(lines[..lines.len() - 1].iter().all(|line| line.starts_with('█')), "{text}");
        assert!(qr(&"x".repeat(5000)).unwrap_err().to_string().contains("--no-qr"));
    }

    #[test]
    fn open_invites_show_for_whom_they_are() {
        let invites =
            vec![json!({ "id": "i1", "server": null, "expires_at": 0, "note": "for Ann" })];
        let text = render(invites).unwrap();
        assert!(text.ends_with("i1      anyone  1970-01-01T00:00:00Z  for Ann\n"), "{text}");
        assert!(render(Vec::new()).unwrap().contains("restante mailbox invite"));
    }
}
