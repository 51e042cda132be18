//! The process of the limits, beside the relay's.

use std::net::SocketAddr;
use std::process::Stdio;

use anyhow::{Context as _, bail};
use restante_federation_proto::ServerName;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::Limit;

/// Servers that run; killed when dropped.
pub(crate) struct LimitsProcess {
    _child: Child,
    addresses: Vec<(Limit, SocketAddr)>,
}

impl LimitsProcess {
    /// Starts this program once more, to serve in the name of `relay`: both get the same signed requests.
    pub(crate) async fn start(relay: &ServerName) -> anyhow::Result<Self> {
        let this = std::env::current_exe().context("where is this program?")?;
        let mut command = Command::new(this);
        command.args(["limits", "--server-name", relay.as_str()]);
        command.stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("cannot start the limits")?;
        let stdout = child.stdout.take().context("its output was piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let mut addresses = Vec::new();
        for limit in Limit::ALL {
            let Some(line) = lines.next_line().await? else { bail!("the limits ended") };
            let address = line.strip_prefix(limit.name());
            let address = address.and_then(|rest| rest.trim().strip_prefix("http://"));
            let address = address.with_context(|| format!("the limits say {line:?}"))?;
            addresses.push((limit, address.parse()?));
        }
        Ok(Self { _child: child, addresses })
    }

    pub(crate) fn address(&self, limit: Limit) -> SocketAddr {
        let known = self.addresses.iter().find(|(known, _)| *known == limit);
        known.expect("each limit was asked for at the start").1
    }
}
