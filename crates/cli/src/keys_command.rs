//! `restante keys`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use http::Method;
use restante_federation_proto::{ServerName, escape_path_segment};
use serde_json::Value;

use crate::admin_client::AdminClient;
use crate::args::{KeysAction, NodeConfigOption, TrustOptions};
use crate::keys_text::{self, About, Offer, Shown};

/// Carries out one command on the running node.
pub(crate) async fn run(action: KeysAction) -> anyhow::Result<()> {
    match action {
        KeysAction::List { config, json } => {
            let believed = AdminClient::of_node(&config)?.get("/keys").await?;
            if json {
                println!("{}", serde_json::to_string_pretty(&believed)?);
            } else {
                print!("{}", keys_text::list(&serde_json::from_value::<Vec<Shown>>(believed)?));
            }
            Ok(())
        }
        KeysAction::Show { server, config, json } => {
            let shown = AdminClient::of_node(&config)?.get(&target(&server)).await?;
            if json {
                println!("{}", serde_json::to_string_pretty(&shown)?);
            } else {
                print!("{}", keys_text::about(&about(&shown)?));
            }
            Ok(())
        }
        KeysAction::Trust(options) => match &options.document {
            Some(file) => trust_file(&options.server, file, &options.config).await,
            None => trust_offer(&options).await,
        },
        KeysAction::Forget { server, config } => {
            let client = AdminClient::of_node(&config)?;
            client.call(Method::DELETE, &target(&server), Vec::new()).await?;
            println!("the keys of {server} are forgotten");
            Ok(())
        }
    }
}

async fn trust_file(
    server: &ServerName,
    file: &Path,
    config: &NodeConfigOption,
) -> anyhow::Result<()> {
    let document = fs::read(file)
        .with_context(|| format!("cannot read the key document {}", file.display()))?;
    trust(&AdminClient::of_node(config)?, server, document).await
}

/// Shows what is offered, and has it believed if the operator says so.
async fn trust_offer(options: &TrustOptions) -> anyhow::Result<()> {
    let server = &options.server;
    let client = AdminClient::of_node(&options.config)?;
    let about = about(&client.get(&format!("{}?ask=true", target(server))).await?)?;
    print!("{}", keys_text::about(&about));
    let chosen = choose(&about, options.key.as_deref())?;
    if !options.yes {
        println!(
            "\nCompare the key with what the operator of {server} tells you (there: restante keys show {server}),\n\
             then: restante keys trust {server} --key KEY --yes"
        );
        return Ok(());
    }
    trust(&client, server, chosen.document.get().as_bytes().to_vec()).await
}

/// The one document that is meant.
fn choose<'a>(about: &'a About, key: Option<&str>) -> anyhow::Result<&'a Offer> {
    let server = &about.server_name;
    let is_meant = |offer: &&Offer| key.is_none_or(|key| offer.lists(key));
    let meant: Vec<&Offer> = about.offered.iter().filter(is_meant).collect();
    match (meant.as_slice(), key) {
        ([offer], _) => Ok(offer),
        ([], Some(key)) => bail!("no unverified mail of {server} offers the key {key}"),
        ([], None) if about.believed.is_some() => {
            bail!("unverified mail offers nothing else; for another document give --file")
        }
        ([], None) => {
            bail!(
                "neither {server} nor mail in its name offers a key; give its document with --file"
            )
        }
        (_, Some(key)) => bail!(
            "several documents list {key}; save the right one from `restante keys show {server} --json` and give it with --file"
        ),
        (_, None) => bail!(
            "several different documents are offered, of which one at most is true; name its key with --key"
        ),
    }
}

async fn trust(client: &AdminClient, server: &ServerName, document: Vec<u8>) -> anyhow::Result<()> {
    client.call(Method::PUT, &target(server), document).await?;
    println!("{server} is believed to have this key; its unverified mail is judged again");
    Ok(())
}

fn target(server: &ServerName) -> String {
    format!("/keys/{}", escape_path_segment(server.as_str()))
}

/// By way of text, because a raw document is only read from text.
fn about(shown: &Value) -> anyhow::Result<About> {
    Ok(serde_json::from_str(&shown.to_string())?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn offering(keys: &[&str]) -> About {
        let offered = keys.iter().map(|key| {
            json!({
                "server_name": "a.test", "keys": [{ "key_id": "ed25519:1", "key": key }], "valid_until": 1,
                "document": { "key": key }, "envelopes": 1, "relays": ["relay.test"],
            })
        });
        let offered: Vec<Value> = offered.collect();
        about(&json!({ "server_name": "a.test", "believed": null, "offered": offered })).unwrap()
    }

    #[test]
    fn a_single_offer_is_the_one_that_is_meant() {
        let about = offering(&["K"]);
        assert_eq!(choose(&about, None).unwrap().document.get(), r#"{"key":"K"}"#);
        assert_eq!(choose(&about, Some("K")).unwrap().document.get(), r#"{"key":"K"}"#);
    }

    #[test]
    fn of_several_offers_the_operator_must_name_the_key() {
        let about = offering(&["K", "L"]);
        let error = choose(&about, None).unwrap_err().to_string();
        assert!(error.contains("--key"), "{error}");
        assert_eq!(choose(&about, Some("L")).unwrap().document.get(), r#"{"key":"L"}"#);
    }

    #[test]
    fn what_is_not_offered_can_not_be_trusted() {
        let error = choose(&offering(&["K"]), Some("M")).unwrap_err().to_string();
        assert!(error.contains("no unverified mail of a.test offers the key M"), "{error}");
        let error = choose(&offering(&[]), None).unwrap_err().to_string();
        assert!(error.contains("--file"), "{error}");
    }
}
