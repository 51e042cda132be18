//! `restante relays join` and `restante relays leave`: who holds this server's mail.

use std::io::Read as _;
use std::time::Duration;

use anyhow::Context as _;
use restante_federation::{AddressPolicy, BaseUrl};
use restante_federation_proto::{ServerName, escape_path_segment};
use restante_relay_api::InviteLine;
use serde_json::{Value, json};

use crate::admin_client::AdminClient;
use crate::amounts_text::{bytes, envelopes, length};
use crate::args::LeftMail;
use crate::confirmation::{Consent, confirm};

/// The node asks the relay, which may have to fetch this server's keys first.
const DEADLINE: Duration = Duration::from_secs(60);

/// A line is a name, a URL and a token.
const LINE_BYTES_MAX: u64 = 4096;

/// Has the node register at the relay of `line`; `-` reads the line from standard input, where no other user sees it.
/// `addresses` says which addresses a stranger's name may lead to: a line that leads to another one, such as one of the own
/// network, needs the operator's word, since whoever sent it might mean a service there.
pub(crate) async fn join(
    client: AdminClient,
    line: &str,
    (addresses, consent): (&AddressPolicy, Consent),
    as_json: bool,
) -> anyhow::Result<()> {
    let line = if line == "-" { from_standard_input()? } else { line.to_owned() };
    let invite: InviteLine = line.parse()?;
    let url = invite.url.as_ref().map(|url| url.parse::<BaseUrl>()).transpose()?;
    if let Some(url) = &url {
        eprintln!("the line leads to {} at {url}", invite.relay);
        if is_within(url, addresses) {
            confirm(&within(url), consent)?;
        }
    }
    let answer = client.patient(DEADLINE).post("/relays/join", &json!({ "line": line })).await?;
    if as_json {
        println!("{}", serde_json::to_string_pretty(&answer)?);
    } else {
        println!("{}", joined(&invite.relay, &answer));
    }
    Ok(())
}

/// Whether a URL leads by a literal address to where no stranger's name may lead.
fn is_within(url: &BaseUrl, addresses: &AddressPolicy) -> bool {
    let host = url.host.trim_start_matches('[').trim_end_matches(']');
    match host.parse() {
        Ok(address) => !addresses.allows(address),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

fn within(url: &BaseUrl) -> String {
    format!(
        "{url} is no public address: the node would call a machine of your own network, or this one, again and again."
    )
}

fn from_standard_input() -> anyhow::Result<String> {
    let mut line = String::new();
    let mut input = std::io::stdin().lock().take(LINE_BYTES_MAX);
    input.read_to_string(&mut line).context("cannot read the line from standard input")?;
    Ok(line)
}

fn joined(relay: &ServerName, answer: &Value) -> String {
    let granted = [
        answer["time_to_live_ms"].as_u64().map(|kept| length(Duration::from_millis(kept))),
        answer["envelopes_max"].as_u64().map(|count| format!("up to {}", envelopes(count))),
        answer["bytes_max"].as_u64().map(bytes),
    ];
    let granted: Vec<String> = granted.into_iter().flatten().collect();
    let granted = match granted.as_slice() {
        [] => String::new(),
        [kept, bounds @ ..] => format!(" for {kept}, {}", bounds.join(" and ")),
    };
    let onward = match answer["outgoing"].is_object() {
        true => {
            "it delivers this server's own mail onward as well, to homeservers without a relay\n"
        }
        false => "",
    };
    format!(
        "{relay} holds this server's mail from now on{granted}; the node collects it there\n{onward}\
         others leave mail there as soon as their node knows of it: restante relays add SERVER {relay} on their side\n\
         to see that mail comes through: restante doctor node"
    )
}

/// Has the node tell the relay that it need not hold mail any more.
pub(crate) async fn leave(
    client: AdminClient,
    relay: &ServerName,
    mail: LeftMail,
    consent: Consent,
) -> anyhow::Result<String> {
    let word = match mail {
        LeftMail::Drop => "drop",
        LeftMail::Keep => "keep",
    };
    if mail == LeftMail::Drop {
        let loss = format!("Mail that {relay} still holds for this server would be lost for good.");
        confirm(&loss, consent)?;
    }
    let target = format!("/relays/{}/leave", escape_path_segment(relay.as_str()));
    let left = client.patient(DEADLINE).post(&target, &json!({ "mail": word })).await?;
    let what_became = match (left["state"].as_str(), mail) {
        (Some("emptying"), _) => {
            "what it still holds is collected first; restante node status shows when that is done"
        }
        (_, LeftMail::Drop) => "what it still held is gone",
        (_, LeftMail::Keep) => "it held nothing more",
    };
    Ok(format!("{relay} takes no further mail for this server; {what_became}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Args, Command, RelaysAction};
    use crate::scripted_door::ScriptedDoor;

    fn leave_options(arguments: &str) -> (ServerName, LeftMail, Consent) {
        let args = Args::try_parse_from(arguments.split(' ')).unwrap();
        match args.command {
            Command::Relays(RelaysAction::Leave { relay, mail, consent, .. }) => {
                (relay, mail, consent)
            }
            other => panic!("{other:?}"),
        }
    }

    const PUBLIC: &AddressPolicy = &AddressPolicy { allow_networks: Vec::new() };
    const NO_WORD: (&AddressPolicy, Consent) = (PUBLIC, Consent { yes: false });

    #[tokio::test]
    async fn a_line_that_leads_into_the_own_network_needs_the_operators_word() {
        let door = ScriptedDoor::open().await;
        door.answer("POST", "/_restante/admin/v1/relays/join", 200, r#"{"relay":"r.example"}"#);
        let line = |host: &str| format!("restante:r.example?url=http%3A%2F%2F{host}&invite=sesame");
        for host in [
            "127.0.0.1%3A8090",
            "192.168.1.2%3A80",
            "169.254.169.254",
            "%5B%3A%3A1%5D%3A1",
            "localhost%3A9",
        ] {
            let error = join(door.client(), &line(host), NO_WORD, false).await.unwrap_err();
            assert!(error.to_string().contains("no public address"), "{host}: {error}");
            assert!(error.to_string().contains("--yes"), "{host}: {error}");
        }
        assert!(door.asked().is_empty());

        let lan = line("192.168.1.2%3A80");
        let with_word = (PUBLIC, Consent { yes: true });
        join(door.client(), &lan, with_word, false).await.unwrap();
        // Where the node's configuration allows the network, that is word enough.
        let own = AddressPolicy { allow_networks: vec!["192.168.0.0/16".parse().unwrap()] };
        join(door.client(), &lan, (&own, Consent { yes: false }), false).await.unwrap();
        join(door.client(), &line("relay.example%3A80"), NO_WORD, false).await.unwrap();
        assert_eq!(door.asked().len(), 3);
    }

    #[tokio::test]
    async fn a_line_that_is_no_invitation_never_reaches_the_node() {
        let door = ScriptedDoor::open().await;
        let error = join(door.client(), "relay.example", NO_WORD, false).await.unwrap_err();
        assert!(error.to_string().starts_with("that is no invitation"), "{error}");
        assert!(door.asked().is_empty());
    }

    #[tokio::test]
    async fn joining_passes_the_line_on_and_says_what_was_granted() {
        let door = ScriptedDoor::open().await;
        let answer = json!({ "relay": "r.example", "time_to_live_ms": 864_000_000, "envelopes_max": 1000, "bytes_max": 1_048_576 });
        door.answer("POST", "/_restante/admin/v1/relays/join", 200, &answer.to_string());
        let line = "restante:r.example?invite=sesame";
        join(door.client(), line, NO_WORD, false).await.unwrap();
        assert_eq!(door.asked()[0].body, json!({ "line": line }).to_string());
        let text = joined(&"r.example".parse().unwrap(), &answer);
        assert!(
            text.starts_with("r.example holds this server's mail from now on for 10 d, up to 1000 envelopes and 1.0 MiB;"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn leaving_keeps_mail_unless_told_to_drop_it_which_needs_consent() {
        let door = ScriptedDoor::open().await;
        door.answer(
            "POST",
            "/_restante/admin/v1/relays/r.example/leave",
            200,
            r#"{"state":"emptying"}"#,
        );
        let (relay, mail, consent) = leave_options("restante relays leave r.example");
        let text = leave(door.client(), &relay, mail, consent).await.unwrap();
        assert!(text.contains("is collected first"), "{text}");
        assert_eq!(door.asked()[0].body, r#"{"mail":"keep"}"#);
        let (relay, mail, consent) = leave_options("restante relays leave r.example --mail drop");
        let error = leave(door.client(), &relay, mail, consent).await.unwrap_err();
        assert!(error.to_string().contains("lost for good"), "{error}");
        assert_eq!(door.asked().len(), 1);
        let (relay, mail, consent) =
            leave_options("restante relays leave r.example --mail drop --yes");
        leave(door.client(), &relay, mail, consent).await.unwrap();
        assert_eq!(door.asked()[1].body, r#"{"mail":"drop"}"#);
    }
}
