//! Which parts of the relay's configuration a reload puts in force, and how.

use async_trait::async_trait;
use restante_federation::BaseUrl;
use restante_operators::Apply;
use tokio::sync::watch;

use crate::config::RelayConfig;
use crate::state::RelayState;

/// Keys and sections whose changes take effect without a restart.
pub const RELOADED_KEYS: &[&str] = &[
    "serve",
    "listed",
    "public_url",
    "limits.body_bytes_max",
    "limits.waiting_collects_max",
    "limits.waiting_collects_per_mailbox_max",
    "limits.waiting_collects_per_address_max",
    "limits.requests_per_address_per_second",
    "limits.requests_per_address_burst",
    "limits.requests_per_origin_per_second",
    "limits.requests_per_origin_burst",
    "limits.newcomers_per_address_per_minute",
    "mailbox",
    "storage",
    "onward",
    "log",
    "federation.require_destination",
];

/// Applies a changed configuration to a relay.
pub(crate) struct Changes {
    pub(crate) relay: RelayState,
    pub(crate) public_url: watch::Sender<Option<BaseUrl>>,
}

#[async_trait]
impl Apply<RelayConfig> for Changes {
    async fn apply(&self, config: &RelayConfig) -> Result<(), String> {
        self.relay.take_up(config);
        self.public_url.send_replace(config.public_url.clone());
        Ok(())
    }
}
