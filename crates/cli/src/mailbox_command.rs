//! `restante mailbox`: an operator's commands on the mailboxes of a running relay.

mod dropping;
mod export;
mod import;
mod invite;
mod list;
mod pages;
mod show;

use anyhow::bail;
use restante_federation_proto::{ServerName, escape_path_segment};
use serde_json::json;

use crate::admin_client::AdminClient;
use crate::args::{MailboxAction, OneMailbox};

/// Carries out one command on the running relay.
pub(crate) async fn run(action: MailboxAction) -> anyhow::Result<()> {
    match action {
        MailboxAction::List { limit, config, json } => {
            list::run(&AdminClient::of_relay(&config)?, limit, json).await
        }
        MailboxAction::Show { server, envelopes, config, json } => {
            show::run(&AdminClient::of_relay(&config)?, &server, envelopes, json).await
        }
        MailboxAction::Hold(OneMailbox { server, config }) => {
            say(hold(&AdminClient::of_relay(&config)?, &server).await)
        }
        MailboxAction::Release(OneMailbox { server, config }) => {
            say(release(&AdminClient::of_relay(&config)?, &server).await)
        }
        MailboxAction::Drop(options) => {
            let client = AdminClient::of_relay(&options.config)?;
            say(dropping::run(&client, &options.server, &options.mail, options.consent).await)
        }
        MailboxAction::Evict(OneMailbox { server, config }) => {
            say(evict(&AdminClient::of_relay(&config)?, &server).await)
        }
        MailboxAction::Invite(options) => {
            invite::make(&AdminClient::of_relay(&options.config)?, &options).await
        }
        MailboxAction::Invites { config, json } => {
            invite::list(&AdminClient::of_relay(&config)?, json).await
        }
        MailboxAction::Revoke { id, config } => {
            say(invite::revoke(&AdminClient::of_relay(&config)?, &id).await)
        }
        MailboxAction::Export { server, file, config } => {
            let Some(text) = export::run(&AdminClient::of_relay(&config)?, &server, &file).await?
            else {
                return Ok(());
            };
            say(Ok(text))
        }
        MailboxAction::Import { server, file, config } => {
            let client = import::patient(AdminClient::of_relay(&config)?);
            say(import::run(&client, &server, &file).await)
        }
    }
}

/// What happened, on standard output.
fn say(text: anyhow::Result<String>) -> anyhow::Result<()> {
    println!("{}", text?);
    Ok(())
}

async fn hold(client: &AdminClient, server: &ServerName) -> anyhow::Result<String> {
    client.post(&target(server, "/hold"), &json!({})).await?;
    Ok(format!(
        "{server}'s mailbox takes mail and hands none out, and nothing in it expires\n\
         when it may have its mail again: restante mailbox release {server}"
    ))
}

async fn release(client: &AdminClient, server: &ServerName) -> anyhow::Result<String> {
    client.post(&target(server, "/release"), &json!({})).await?;
    Ok(format!("{server} gets its mail again"))
}

async fn evict(client: &AdminClient, server: &ServerName) -> anyhow::Result<String> {
    client.post(&target(server, "/evict"), &json!({})).await?;
    Ok(format!(
        "{server} is not registered here any more; an open relay, or one that lists it, takes mail for it all the same\n\
         its mail stays until it is collected or expires; to remove it: restante mailbox drop {server} --all"
    ))
}

/// The path of `server`'s mailbox, and what is behind it.
fn target(server: &ServerName, rest: &str) -> String {
    format!("/mailboxes/{}{rest}", escape_path_segment(server.as_str()))
}

/// A number that the answer must have.
fn number(answer: &serde_json::Value, name: &str) -> anyhow::Result<u64> {
    match answer[name].as_u64() {
        Some(number) => Ok(number),
        None => bail!("the relay's answer has no number {name}; is it of the same version?"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted_door::ScriptedDoor;

    #[tokio::test]
    async fn an_eviction_says_what_becomes_of_the_mail() {
        let door = ScriptedDoor::open().await;
        door.answer("POST", "/_restante/admin/v1/mailboxes/b.example/evict", 200, "{}");
        let text = evict(&door.client(), &"b.example".parse().unwrap()).await.unwrap();
        assert!(text.ends_with("restante mailbox drop b.example --all"), "{text}");
    }

    #[tokio::test]
    async fn a_hold_says_how_it_ends() {
        let door = ScriptedDoor::open().await;
        door.answer("POST", "/_restante/admin/v1/mailboxes/b.example:8448/hold", 200, "{}");
        let server = "b.example:8448".parse().unwrap();
        let text = hold(&door.client(), &server).await.unwrap();
        assert!(text.ends_with("restante mailbox release b.example:8448"), "{text}");
        let error = release(&door.client(), &server).await.unwrap_err();
        assert!(error.to_string().starts_with("no script for POST"), "{error}");
    }
}
