//! `restante relay`.

use std::sync::Arc;

use restante_federation_proto::SystemClock;
use restante_relay::{Relay, RelayConfig};
use tokio_util::sync::CancellationToken;

use crate::args::RelayOptions;
use crate::{config_file, logging, open_files, shutdown};

/// Runs a relay until a signal.
pub(crate) async fn run(options: RelayOptions) -> anyhow::Result<()> {
    logging::start(&options.log)?;
    open_files::raise_limit();
    let config = config(options)?;
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

fn config(options: RelayOptions) -> anyhow::Result<RelayConfig> {
    let mut config = config_file::relay(options.config.as_deref())?;
    if let Some(listen) = options.listen {
        config.listen = listen;
    }
    if let Some(data) = options.data {
        config.data = data;
    }
    Ok(config)
}
