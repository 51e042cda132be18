//! `restante node` and `restante node status`.

use std::sync::Arc;

use restante_federation::InheritedSockets;
use restante_federation_proto::SystemClock;
use restante_node::Node;
use restante_operators::{ConfigSource as _, FreshConfig};
use tokio_util::sync::CancellationToken;

use crate::admin_client::AdminClient;
use crate::announcement::announce;
use crate::args::{LogOptions, NodeConfigOption, StatusOptions};
use crate::config_source::NodeSource;
use crate::{logging, open_files, shutdown, status_text};

/// Runs a node until a signal.
pub(crate) async fn run(options: NodeConfigOption, log: LogOptions) -> anyhow::Result<()> {
    anyhow::ensure!(options.door.is_none(), "--door is for commands that ask a running node");
    let log = logging::start(&log)?;
    let sockets = InheritedSockets::of_process();
    open_files::raise_limit();
    let source = NodeSource { file: options.file, log: log.clone() };
    let FreshConfig { config, keys } = source.read().map_err(anyhow::Error::msg)?;
    log.follow(&config.log.filter)?;
    let token = CancellationToken::new();
    let server_name = config.server_name.clone();
    let mut node = Node::start_on(config, Arc::new(SystemClock), sockets, token.clone()).await?;
    let addresses = node.addresses();
    announce(&format!(
        "restante node {} for {server_name}\noutbound on {}\ninbound on {}\nadmin on {}",
        env!("CARGO_PKG_VERSION"),
        addresses.outbound,
        addresses.inbound,
        addresses.admin
    ));
    let reload = node.reloaded_from(Arc::new(source), &keys);
    shutdown::until_signal(node.run(), reload, token).await
}

/// Prints a running node's status.
pub(crate) async fn status(options: StatusOptions) -> anyhow::Result<()> {
    let client = AdminClient::of_node(&options.config)?;
    let status = client.get("/status").await?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print!("{}", status_text::render(&serde_json::from_value(status)?));
    }
    Ok(())
}
