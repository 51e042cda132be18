//! A homeserver as most are: without a node.

use crate::client::Client;
use crate::forwarder::Forwarder;
use crate::homeserver::Homeserver;
use crate::link::Link;

/// A homeserver that knows nothing of relays, and a user's client.
#[derive(Debug)]
pub struct StockSite {
    /// The user's client.
    pub client: Client,
    /// The homeserver.
    pub homeserver: Homeserver,
    /// The way that others take to it.
    pub link: Link,
    pub(crate) _forwarder: Forwarder,
}

impl StockSite {
    /// Takes the homeserver off: nobody reaches it.
    pub async fn go_offline(&mut self) {
        self.link.cut().await;
        self.homeserver.stop().await;
    }

    /// Brings the homeserver back; returns when it answers.
    pub async fn come_online(&mut self) {
        self.link.restore().await;
        self.homeserver.start_again().await;
    }
}
