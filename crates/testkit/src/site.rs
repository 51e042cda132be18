//! A site: a homeserver, its node and a user's client, which go offline and come back together.

use std::time::Duration;

use crate::client::Client;
use crate::homeserver::Homeserver;
use crate::link::Link;
use crate::mailbox::MailboxView;
use crate::node::NodeProcess;
use crate::relay::RelayProcess;

/// One server's end of the world. The client stays on all the time, as a phone would.
#[derive(Debug)]
pub struct Site {
    /// The user's client.
    pub client: Client,
    /// The node.
    pub node: NodeProcess,
    /// The homeserver.
    pub homeserver: Homeserver,
    /// The way that others take to the node's inbound door.
    pub link: Link,
}

impl Site {
    /// Takes the site off: nobody reaches it, homeserver and node are shut down in order.
    pub async fn go_offline(&mut self) {
        self.link.cut().await;
        tokio::join!(self.homeserver.stop(), self.node.stop());
    }

    /// Cuts the site's power: homeserver and node are killed.
    pub async fn lose_power(&mut self) {
        self.link.cut().await;
        tokio::join!(self.homeserver.kill(), self.node.kill());
    }

    /// Brings the site back, homeserver and node at once; returns when both answer.
    pub async fn come_online(&mut self) {
        self.link.restore().await;
        tokio::join!(self.homeserver.start_again(), self.node.start_again());
    }

    /// The same, behind a way that stays cut: it reaches others, and nobody reaches it.
    pub async fn come_online_unreachable(&mut self) {
        tokio::join!(self.homeserver.start_again(), self.node.start_again());
    }

    /// Sets the clock of the site's machine ahead, from the next time that it comes online on. Linux only.
    pub fn set_clock_ahead(&mut self, ahead: Duration) {
        self.homeserver.set_clock_ahead(ahead);
        self.node.set_clock_ahead(ahead);
    }

    /// This site's mailbox at `relay`.
    pub fn mailbox_at<'a>(&'a self, relay: &'a RelayProcess) -> MailboxView<'a> {
        relay.mailbox(self.homeserver.server_name(), self.homeserver.signing_key())
    }

    /// How many transactions reached its inbound door from outside.
    pub fn direct_transactions(&self) -> usize {
        self.link.requests("PUT", restante_relay_api::endpoints::SEND)
    }
}
