//! `restante relay`, and what an operator asks of a running or stopped relay as a whole.

mod backup;

use std::sync::Arc;

use restante_federation_proto::SystemClock;
use restante_relay::{Relay, RelayConfig};
use tokio_util::sync::CancellationToken;

use crate::admin_client::AdminClient;
use crate::args::{RelayAction, RelayConfigOptions, RelayOptions, ReloadSubject};
use crate::{logging, open_files, relay_status_text, reload_command, shutdown};

/// Runs a relay until a signal, or carries out one command.
pub(crate) async fn run(options: RelayOptions) -> anyhow::Result<()> {
    match options.action {
        None => serve(options).await,
        Some(RelayAction::Status { config, json }) => status(&config, json).await,
        Some(RelayAction::Reload { config }) => {
            reload_command::run(ReloadSubject::Relay { config }).await
        }
        Some(RelayAction::Backup { file, config }) => {
            println!("{}", backup::make(AdminClient::of_relay(&config)?, &file).await?);
            Ok(())
        }
        Some(RelayAction::Restore { file, consent, config }) => {
            println!("{}", backup::restore(&config.read()?, &file, consent).await?);
            Ok(())
        }
    }
}

async fn serve(options: RelayOptions) -> anyhow::Result<()> {
    logging::start(&options.log)?;
    open_files::raise_limit();
    let config = config(&options)?;
    let token = CancellationToken::new();
    let data = config.data.clone();
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let relay = Relay::start(config, Arc::new(SystemClock), token.clone()).await?;
    println!("restante relay {}", env!("CARGO_PKG_VERSION"));
    println!("server name   {}", relay.server_name());
    println!("listening on  {scheme}://{}", relay.local_address());
    println!("data in       {}", data.display());
    println!();
    println!("What next:");
    println!("  restante config generate node > node.toml   # for the node beside each homeserver");
    println!("In each node.toml, name this relay for the servers whose mail it shall hold:");
    println!(
        "  [relays]\n  \"your.server\" = [{{ server_name = \"{}\", url = \"{scheme}://{}\" }}]",
        relay.server_name(),
        relay.local_address()
    );
    let certificate = relay.certificate();
    shutdown::until_signal(relay.run(), certificate, token).await
}

fn config(options: &RelayOptions) -> anyhow::Result<RelayConfig> {
    let mut config = options.config.read()?;
    if let Some(listen) = options.listen {
        config.listen = listen;
    }
    Ok(config)
}

async fn status(config: &RelayConfigOptions, as_json: bool) -> anyhow::Result<()> {
    let status = AdminClient::of_relay(config)?.get("/status").await?;
    if as_json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print!("{}", relay_status_text::render(&status)?);
    }
    Ok(())
}
