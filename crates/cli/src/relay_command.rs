//! `restante relay`, and what an operator asks of a running or stopped relay as a whole.

mod backup;

use std::sync::Arc;

use restante_federation::InheritedSockets;
use restante_federation_proto::{ServerName, SystemClock};
use restante_operators::{ConfigSource as _, FreshConfig};
use restante_relay::{Relay, Serve};
use tokio_util::sync::CancellationToken;

use crate::admin_client::AdminClient;
use crate::announcement::announce;
use crate::args::{RelayAction, RelayConfigOptions, RelayOptions, ReloadSubject};
use crate::config_source::RelaySource;
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
    let door = &options.config.door;
    anyhow::ensure!(door.is_none(), "--door is for commands that ask a running relay");
    let log = logging::start(&options.log)?;
    let sockets = InheritedSockets::of_process();
    open_files::raise_limit();
    let source = RelaySource { options, log: log.clone() };
    let FreshConfig { config, keys } = source.read().map_err(anyhow::Error::msg)?;
    log.follow(&config.log.filter)?;
    let token = CancellationToken::new();
    let data = config.data.clone();
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let (serve, public_url) = (config.serve, config.public_url.clone());
    let mut relay = Relay::start_on(config, Arc::new(SystemClock), sockets, token.clone()).await?;
    let url = public_url
        .map_or_else(|| format!("{scheme}://{}", relay.local_address()), |url| url.to_string());
    announce(&format!(
        "restante relay {}\nserver name   {}\nlistening on  {scheme}://{}\noperators at  http://{}\ndata in       {}\n\n{}",
        env!("CARGO_PKG_VERSION"),
        relay.server_name(),
        relay.local_address(),
        relay.operators_address(),
        data.display(),
        what_next(serve, relay.server_name(), &url)
    ));
    let reload = relay.reloaded_from(Arc::new(source), &keys);
    shutdown::until_signal(relay.run(), reload, token).await
}

fn what_next(serve: Serve, name: &ServerName, url: &str) -> String {
    let for_servers = match serve {
        Serve::Open => format!(
            "In each node.toml, name this relay for the servers whose mail it shall hold:\n  \
             [relays]\n  \"your.server\" = [{{ server_name = \"{name}\", url = \"{url}\" }}]"
        ),
        Serve::Invited | Serve::Listed => {
            "An invite for each server whose mail it shall hold, with this relay's --config or --data:\n  \
             restante mailbox invite     # there, beside the running node: restante relays join LINE"
                .to_owned()
        }
    };
    format!(
        "What next:\n  restante doctor relay       # with the same --config or --data\n  \
         restante config generate node > node.toml   # for the node beside each homeserver\n{for_servers}"
    )
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
