//! Where the relay is, which changes while calls are made.

use restante_federation::Peer;
use tokio::sync::watch;

/// Where calls go.
#[derive(Debug)]
pub(super) struct Target(watch::Sender<Option<Peer>>);

impl Target {
    pub(super) fn nowhere() -> Self {
        Self(watch::Sender::new(None))
    }

    pub(super) fn set(&self, peer: Option<Peer>) {
        self.0.send_replace(peer);
    }

    /// The relay, as soon as there is one.
    pub(super) async fn peer(&self) -> Peer {
        let mut target = self.0.subscribe();
        loop {
            let peer = target.borrow_and_update().clone();
            match peer {
                Some(peer) => return peer,
                // The sender lives as long as `self`.
                None => drop(target.changed().await),
            }
        }
    }
}
