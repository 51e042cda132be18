//! Looks into every mailbox while nobody else does anything, so that nothing that is lost stays unseen.

use std::time::Duration;

use restante_federation::{Identity, Peer};

use super::Load;
use crate::history::{Acknowledged, Answer, Collect};

/// Envelopes and bytes of a page: the most that a relay gives.
const PAGE_ENVELOPES: u64 = restante_relay_api::limits::COLLECT_ENVELOPES_MAX as u64;
const PAGE_BYTES: u64 = restante_relay_api::limits::COLLECT_BYTES_MAX as u64;

/// What becomes of what an audit finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Stays,
    IsAcknowledged,
}

impl Load {
    /// Collects everything at `relay`, page by page, and leaves it where it is. Wherever the load itself is pointed.
    pub async fn audit(&self, relay: &Peer) {
        for owner in &self.mailboxes {
            self.walk(relay, owner, Found::Stays).await;
        }
    }

    /// Collects and acknowledges everything, looks once more, leaves the last letters again, which must stay duplicates, and
    /// looks a third time.
    pub async fn drain(&self, relay: &Peer) {
        for owner in &self.mailboxes {
            self.walk(relay, owner, Found::IsAcknowledged).await;
        }
        self.audit(relay).await;
        for (writer, letter) in self.shelf.all() {
            self.caller.deposit(relay, &writer, &letter).await;
        }
        self.audit(relay).await;
    }

    /// Ends where the relay stops answering: what it then still has to show it never will.
    async fn walk(&self, relay: &Peer, owner: &Identity, found: Found) {
        let (mut after, mut acknowledge) = (0, Vec::new());
        loop {
            let collect = Collect {
                after,
                limit: PAGE_ENVELOPES,
                max_bytes: PAGE_BYTES,
                acknowledge: std::mem::take(&mut acknowledge),
                have: Vec::new(),
            };
            let answer = self.caller.collect(relay, owner, collect, Duration::ZERO).await;
            let Answer::Collected(collected) = answer else { return };
            let Some(last) = collected.envelopes.last() else { return };
            after = last.id;
            if found == Found::IsAcknowledged {
                let taken = collected.envelopes.iter();
                acknowledge.extend(
                    taken.map(|seen| Acknowledged { id: seen.id, sha256: Some(seen.content) }),
                );
            }
        }
    }
}
