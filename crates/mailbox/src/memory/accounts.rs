//! What became of mail in memory, by its name.

use async_trait::async_trait;
use restante_federation_proto::{ServerName, Timestamp};

use super::{MemoryStore, State};
use crate::duplicate::DuplicateKey;
use crate::{
    Accounts, Acknowledged, Acknowledgement, Hold, MailName, NAMES_AHEAD_MAX, Registered,
    StoreError, Whereabouts,
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
        let held = copies.iter().filter_map(|name| {
            let id = *state.held.get(&DuplicateKey::named(recipient, name))?;
            Some(Acknowledgement { id, content_hash: None })
        });
        let held: Vec<_> = held.collect();
        let acknowledged = state.acknowledge(recipient, &held);
        if state.registers.registered(recipient) == Registered::Yes {
            copies.iter().for_each(|name| state.remember_ahead(recipient, name, now));
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
            Some((mailbox.hold, mailbox.expires_at(*id)?))
        });
        match held {
            Some((hold, expires_at)) if hold == Hold::Held || expires_at >= now => {
                Whereabouts::Held
            }
            Some(_) => Whereabouts::Unknown,
            None if self.has_acknowledged(recipient, key) => Whereabouts::Acknowledged,
            None => Whereabouts::Unknown,
        }
    }

    /// Whether its recipient has the mail of that key.
    pub(super) fn has_acknowledged(&self, recipient: &ServerName, key: DuplicateKey) -> bool {
        self.acknowledged.contains_key(&key)
            || self.ahead.get(recipient).is_some_and(|ahead| ahead.contains(&key))
    }

    fn remember_ahead(&mut self, recipient: &ServerName, name: &MailName, now: Timestamp) {
        let key = DuplicateKey::named(recipient, name);
        if self.has_acknowledged(recipient, key) {
            return;
        }
        let ahead = self.ahead.entry(recipient.clone()).or_default();
        if (ahead.len() as u64) < NAMES_AHEAD_MAX {
            ahead.insert(key);
            self.keys_by_age.insert((now, key, Some(recipient.clone())));
        }
    }

    /// Forgets a key, and whose it was if it was remembered ahead.
    pub(super) fn forget(&mut self, key: DuplicateKey, ahead_of: Option<ServerName>) {
        let Some(recipient) = ahead_of else {
            self.acknowledged.remove(&key);
            return;
        };
        if let Some(ahead) = self.ahead.get_mut(&recipient) {
            ahead.remove(&key);
            if ahead.is_empty() {
                self.ahead.remove(&recipient);
            }
        }
    }
}
