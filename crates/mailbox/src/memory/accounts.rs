//! What became of mail in memory, by its name.

use async_trait::async_trait;
use restante_federation_proto::{ServerName, Timestamp};

use super::{MemoryStore, State};
use crate::duplicate::DuplicateKey;
use crate::{
    Accounts, Acknowledged, Acknowledgement, Hold, MailName, Registered, StoreError, Whereabouts,
};

#[async_trait]
impl Accounts for MemoryStore {
    async fn whereabouts(
        &self,
        mail: &[(ServerName, MailName)],
        now: Timestamp,
    ) -> Result<Vec<Whereabouts>, StoreError> {
        let state = self.state();
        Ok(mail.iter().map(|(recipient, name)| state.whereabouts(recipient, name, now)).collect())
    }

    async fn acknowledge_copies(
        &self,
        recipient: &ServerName,
        copies: &[DuplicateKey],
        now: Timestamp,
    ) -> Result<Acknowledged, StoreError> {
        let mut state = self.state();
        let own = |key: &&DuplicateKey| state.is_held_by(recipient, **key);
        let (held, absent): (Vec<_>, Vec<_>) = copies.iter().partition(own);
        let ids = held.iter().filter_map(|key| state.held.get(key).copied());
        let held: Vec<_> = ids.map(|id| Acknowledgement { id, content_hash: None }).collect();
        let acknowledged = state.acknowledge(recipient, &held);
        if state.registers.registered(recipient) == Registered::Yes {
            let unknown = absent.iter().filter(|key| !state.acknowledged.contains_key(key));
            let unknown: Vec<_> = unknown.collect();
            unknown.into_iter().for_each(|key| state.ahead.remember(key.ahead_of(recipient), now));
        }
        Ok(acknowledged)
    }
}

impl State {
    /// Whether it lies in `recipient`'s mailbox.
    fn is_held_by(&self, recipient: &ServerName, key: DuplicateKey) -> bool {
        let mailbox = self.mailboxes.get(recipient);
        let held = mailbox.zip(self.held.get(&key)).and_then(|(mailbox, id)| mailbox.key(*id));
        held == Some(key)
    }

    fn whereabouts(&self, recipient: &ServerName, name: &MailName, now: Timestamp) -> Whereabouts {
        let key = DuplicateKey::named(recipient, name);
        let mailbox = self.mailboxes.get(recipient);
        let held = self.held.get(&key).and_then(|id| {
            let mailbox = mailbox?;
            Some((mailbox.hold, mailbox.times(*id)?.1))
        });
        match held {
            Some((hold, expires_at)) if hold == Hold::Held || expires_at >= now => {
                Whereabouts::Held
            }
            Some(_) => Whereabouts::Unknown,
            None if self.acknowledged.contains_key(&key) => Whereabouts::Acknowledged,
            None => Whereabouts::Unknown,
        }
    }
}
