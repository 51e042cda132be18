//! The backend that keeps everything in memory: for tests, and for the limits of benchmarks.

mod mailbox;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use restante_federation_proto::{Dice, ServerName, SystemDice, Timestamp};

use crate::duplicate::DuplicateKey;
use crate::{
    Acknowledged, Acknowledgement, Collected, Deposit, Deposited, Depth, EntryId, Expired,
    MailboxLimits, MailboxStore, MailboxSummary, Page, StoreError,
};
use mailbox::Mailbox;

/// In memory: every promise but durability.
pub struct MemoryStore {
    limits: MailboxLimits,
    dice: Arc<dyn Dice>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    mailboxes: BTreeMap<ServerName, Mailbox>,
    /// Keys of what is held.
    held: HashSet<DuplicateKey>,
    /// Keys of what was acknowledged.
    acknowledged: HashMap<DuplicateKey, Timestamp>,
    /// What expires, oldest first: envelopes, then keys.
    envelopes_by_age: BTreeSet<(Timestamp, ServerName, EntryId)>,
    keys_by_age: BTreeSet<(Timestamp, DuplicateKey)>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(limits: MailboxLimits) -> Self {
        Self::with_dice(limits, Arc::new(SystemDice))
    }

    /// An empty store whose ids begin where `dice` say.
    pub fn with_dice(limits: MailboxLimits, dice: Arc<dyn Dice>) -> Self {
        Self { limits, dice, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl MailboxStore for MemoryStore {
    async fn deposit(&self, deposit: Deposit) -> Result<Deposited, StoreError> {
        Ok(self.state().deposit(deposit, self.limits, self.dice.number()))
    }

    async fn collect(
        &self,
        recipient: &ServerName,
        after: Option<EntryId>,
        page: Page,
    ) -> Result<Collected, StoreError> {
        let state = self.state();
        let envelopes = state.mailboxes.get(recipient).map(|mailbox| mailbox.page(after, page));
        Ok(Collected { envelopes: envelopes.unwrap_or_default(), quarantined: Vec::new() })
    }

    async fn acknowledge(
        &self,
        recipient: &ServerName,
        acknowledgements: &[Acknowledgement],
    ) -> Result<Acknowledged, StoreError> {
        Ok(self.state().acknowledge(recipient, acknowledgements))
    }

    async fn depth(&self, recipient: &ServerName) -> Result<Depth, StoreError> {
        Ok(self.state().mailboxes.get(recipient).map(Mailbox::depth).unwrap_or_default())
    }

    async fn expire(
        &self,
        deposited_before: Timestamp,
        batch_max: usize,
    ) -> Result<Expired, StoreError> {
        let mut state = self.state();
        Ok(Expired {
            envelopes: state.expire_envelopes(deposited_before, batch_max),
            remembered: state.expire_keys(deposited_before, batch_max),
        })
    }

    async fn list(
        &self,
        after: Option<&ServerName>,
        limit: usize,
    ) -> Result<Vec<MailboxSummary>, StoreError> {
        use std::ops::Bound;
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let state = self.state();
        let mailboxes = state.mailboxes.range((start, Bound::Unbounded)).take(limit);
        Ok(mailboxes.map(|(recipient, mailbox)| mailbox.summary(recipient)).collect())
    }

    async fn health(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl State {
    fn deposit(&mut self, deposit: Deposit, limits: MailboxLimits, random: u64) -> Deposited {
        let key = DuplicateKey::of(&deposit);
        if self.held.contains(&key) || self.acknowledged.contains_key(&key) {
            return Deposited::Duplicate;
        }
        let depth = self.mailboxes.get(&deposit.recipient).map(Mailbox::depth).unwrap_or_default();
        if !limits.have_room(depth.count, depth.bytes, deposit.bytes()) {
            return Deposited::MailboxFull;
        }
        let (recipient, deposited_at) = (deposit.recipient.clone(), deposit.deposited_at);
        let mailbox = self
            .mailboxes
            .entry(recipient.clone())
            .or_insert_with(|| Mailbox::new(EntryId::first(random)));
        let Some(id) = mailbox.push(deposit) else { return Deposited::MailboxFull };
        self.held.insert(key);
        self.envelopes_by_age.insert((deposited_at, recipient, id));
        Deposited::Stored(id)
    }

    fn acknowledge(
        &mut self,
        recipient: &ServerName,
        acknowledgements: &[Acknowledgement],
    ) -> Acknowledged {
        let mut acknowledged = Acknowledged::default();
        let Some(mailbox) = self.mailboxes.get_mut(recipient) else { return acknowledged };
        for acknowledgement in acknowledgements {
            let Some(deposit) = mailbox.acknowledge(*acknowledgement) else { continue };
            let (key, at) = (DuplicateKey::of(&deposit), deposit.deposited_at);
            self.envelopes_by_age.remove(&(at, deposit.recipient, acknowledgement.id));
            self.held.remove(&key);
            self.acknowledged.insert(key, at);
            self.keys_by_age.insert((at, key));
            acknowledged.removed += 1;
        }
        acknowledged
    }

    fn expire_envelopes(&mut self, deposited_before: Timestamp, batch_max: usize) -> u64 {
        let mut count = 0;
        while count < batch_max
            && let Some((_, recipient, id)) =
                pop_first_if(&mut self.envelopes_by_age, |(at, ..)| *at < deposited_before)
        {
            let mailbox = self.mailboxes.get_mut(&recipient);
            if let Some(deposit) = mailbox.and_then(|mailbox| mailbox.expire(id)) {
                self.held.remove(&DuplicateKey::of(&deposit));
            }
            count += 1;
        }
        count as u64
    }

    fn expire_keys(&mut self, deposited_before: Timestamp, batch_max: usize) -> u64 {
        let mut count = 0;
        while count < batch_max
            && let Some((_, key)) =
                pop_first_if(&mut self.keys_by_age, |(at, _)| *at < deposited_before)
        {
            self.acknowledged.remove(&key);
            count += 1;
        }
        count as u64
    }
}

fn pop_first_if<T: Ord>(set: &mut BTreeSet<T>, due: impl Fn(&T) -> bool) -> Option<T> {
    set.first().is_some_and(due).then(|| set.pop_first())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn keeps_every_promise_of_a_store() {
        conformance::run_all(async |limits| Arc::new(MemoryStore::new(limits)) as _).await;
    }

    #[test]
    fn behaves_like_the_model_whatever_is_asked() {
        conformance::histories::check(256, |limits| Arc::new(MemoryStore::new(limits)));
    }
}
