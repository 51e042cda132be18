//! What a measurement plays on: a relay as it is released, with bounds that no load here meets, and the limits beside it.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use restante_federation_proto::ServerName;

use crate::drive::{Answered, closed_loop};
use crate::limits::Limit;
use crate::limits::process::LimitsProcess;
use crate::mail::{Beside, Writers};
use crate::process::RelayProcess;

/// A few servers make the whole load, and all of it from one address.
const CONFIG: &str = r#"
federation = { dns = "off" }

[limits]
requests_per_origin_per_second = 100000000
requests_per_origin_burst = 100000000
waiting_collects_per_address_max = 4096

[mailbox]
envelopes_max = 1000000000
bytes_max = 1000000000000
origin_envelopes_max = 1000000000
origin_bytes_max = 1000000000000

[storage]
total_envelopes_max = 1000000000
total_bytes_max = 1000000000000
mailboxes_max = 1000000000
"#;

/// A relay, the limits in its name, and who writes.
pub(crate) struct Stage {
    pub(crate) relay: RelayProcess,
    pub(crate) limits: LimitsProcess,
    pub(crate) writers: Writers,
}

/// The relay's configuration.
pub(crate) fn config() -> anyhow::Result<toml::Table> {
    Ok(toml::from_str(CONFIG)?)
}

impl Stage {
    pub(crate) async fn open(program: &Path) -> anyhow::Result<Self> {
        Self::open_with(program, config()?).await
    }

    pub(crate) async fn open_with(program: &Path, config: toml::Table) -> anyhow::Result<Self> {
        let relay = RelayProcess::start(program, config).await?;
        let limits = LimitsProcess::start(&relay.server_name).await?;
        let writers = Writers::to(&relay.server_name);
        Ok(Self { relay, limits, writers })
    }

    /// Sends prepared requests to the relay in a closed loop.
    pub(crate) async fn ask_relay(
        &self,
        connections: usize,
        requests: &Arc<[Bytes]>,
    ) -> anyhow::Result<Answered> {
        closed_loop(self.relay.address, connections, requests).await
    }

    /// Sends the same to a limit.
    pub(crate) async fn ask_limit(
        &self,
        limit: Limit,
        connections: usize,
        requests: &Arc<[Bytes]>,
    ) -> anyhow::Result<Answered> {
        closed_loop(self.limits.address(limit), connections, requests).await
    }

    /// Leaves so much mail for each of `recipients` in turn, without measuring; deposits a second, for who wants to know.
    pub(crate) async fn fill(
        &self,
        count: usize,
        bytes: usize,
        recipients: &[ServerName],
    ) -> anyhow::Result<f64> {
        let (mut left, mut rate) = (count, 0.0);
        let mut from = 0;
        while left > 0 {
            let part = left.min((FILL_BYTES / bytes).max(1));
            let mut ahead: Vec<_> = recipients.to_vec();
            ahead.rotate_left(from % recipients.len());
            let requests = self.writers.deposits(part, bytes, &ahead, Beside::Nothing)?;
            rate = self.ask_relay(FILL_CONNECTIONS, &requests).await?.rate();
            (left, from) = (left - part, from + part);
        }
        Ok(rate)
    }
}

/// Prepared at once.
const FILL_BYTES: usize = 64 * 1024 * 1024;

/// Enough that commits are shared.
const FILL_CONNECTIONS: usize = 64;
