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
        copies: &[MailName],
        now: Timestamp,
    ) -> Result<Acknowledged, StoreError> {
        let mut state = self.state();
        let keys = copies.iter().map(|name| DuplicateKey::named(recipient, name));
        let (held, absent): (Vec<_>, Vec<_>) = keys.partition(|key| state.held.contains_key(key));
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
