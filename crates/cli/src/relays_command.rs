//! `restante relays`.

use http::Method;
use restante_federation_proto::{ServerName, escape_path_segment};
use serde_json::json;

use crate::admin_client::AdminClient;
use crate::args::{NodeConfigOption, RelaysAction};
use crate::relays_text::{self, RelayLine};
use crate::{config_file, join_command};

/// Carries out one command on the running node.
pub(crate) async fn run(action: RelaysAction) -> anyhow::Result<()> {
    match action {
        RelaysAction::Join { line, consent, config, json } => {
            let addresses = config_file::node(&config.file)?.federation.client_config().addresses;
            let client = AdminClient::of_node(&config)?;
            join_command::join(client, &line, (&addresses, consent), json).await
        }
        RelaysAction::Leave { relay, mail, consent, config } => {
            let client = AdminClient::of_node(&config)?;
            println!("{}", join_command::leave(client, &relay, mail, consent).await?);
            Ok(())
        }
        RelaysAction::List { server, config, json } => list(server, &config, json).await,
        RelaysAction::Add { server, relay, url, config } => {
            let client = AdminClient::of_node(&config)?;
            let body = json!({ "url": url }).to_string();
            client.call(Method::PUT, &target(&server, &relay), body.into_bytes()).await?;
            println!("{relay} holds mail of {server} from now on");
            Ok(())
        }
        RelaysAction::Remove { server, relay, config } => {
            let client = AdminClient::of_node(&config)?;
            client.call(Method::DELETE, &target(&server, &relay), Vec::new()).await?;
            println!("{relay} gets no further mail of {server}");
            Ok(())
        }
        RelaysAction::Trust { server, relay, config } => {
            let client = AdminClient::of_node(&config)?;
            let target = format!("{}/trust", target(&server, &relay));
            client.call(Method::POST, &target, Vec::new()).await?;
            println!("the word of {relay} counts as sent for mail of {server} again");
            Ok(())
        }
    }
}

async fn list(
    server: Option<ServerName>,
    config: &NodeConfigOption,
    as_json: bool,
) -> anyhow::Result<()> {
    let client = AdminClient::of_node(config)?;
    let query = server.map(|server| format!("?server={}", escape_path_segment(server.as_str())));
    let relays = client.get(&format!("/relays{}", query.unwrap_or_default())).await?;
    if as_json {
        println!("{}", serde_json::to_string_pretty(&relays)?);
        return Ok(());
    }
    print!("{}", relays_text::text(&serde_json::from_value::<Vec<RelayLine>>(relays)?));
    Ok(())
}

fn target(server: &ServerName, relay: &ServerName) -> String {
    let (server, relay) =
        (escape_path_segment(server.as_str()), escape_path_segment(relay.as_str()));
    format!("/relays/{server}/{relay}")
}
