//! The backend that keeps everything in memory: for tests, and for the limits of benchmarks.

mod accounts;
mod custody;
mod mailbox;
mod onward;
mod registry;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use restante_federation_proto::{Dice, ServerName, SystemDice, Timestamp};

use crate::ahead::Ahead;
use crate::duplicate::DuplicateKey;
use crate::rules::{Berth, Held, Load};
use crate::{
    Acknowledged, Acknowledgement, Collected, Deposit, Deposited, Depth, Due, EntryId, Expired,
    Full, HOLD_GRACE, Hold, Known, Loss, LossKind, MailboxStore, MailboxSummary, Onward, Page,
    Quotas, StoreError,
};
use mailbox::{Holds, Mailbox};
use registry::Registers;

/// In memory: every promise but durability.
pub struct MemoryStore {
    dice: Arc<dyn Dice>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    mailboxes: BTreeMap<ServerName, Mailbox>,
    /// What all of them hold.
    load: Load,
    /// Envelopes so far, which orders those that expire at the same time.
    stored: u64,
    /// Keys of what is held.
    held: HashMap<DuplicateKey, EntryId>,
    /// Keys of what was acknowledged.
    acknowledged: HashMap<DuplicateKey, Timestamp>,
    /// Keys of mail that its recipient has and that never came.
    ahead: Ahead,
    /// What expires, first to last: envelopes, then keys.
    envelopes_by_expiry: BTreeSet<(Timestamp, u64, ServerName, EntryId)>,
    keys_by_age: BTreeSet<(Timestamp, DuplicateKey)>,
    registers: Registers,
    expired_to: Option<Timestamp>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::with_dice(Arc::new(SystemDice))
    }

    /// An empty store whose ids begin where `dice` say.
    pub fn with_dice(dice: Arc<dyn Dice>) -> Self {
        Self { dice, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl MailboxStore for MemoryStore {
    async fn deposit(&self, deposit: Deposit, quotas: Quotas) -> Result<Deposited, StoreError> {
        Ok(self.state().deposit(deposit, quotas, self.dice.number()))
    }

    async fn collect(
        &self,
        recipient: &ServerName,
        after: Option<EntryId>,
        page: Page,
    ) -> Result<Collected, StoreError> {
        let state = self.state();
        let open = state.mailboxes.get(recipient).filter(|mailbox| mailbox.hold == Hold::Released);
        let envelopes = open.map(|mailbox| mailbox.page(after, page)).unwrap_or_default();
        Ok(Collected { envelopes, quarantined: Vec::new() })
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

    async fn expire(&self, due: Due, batch_max: usize) -> Result<Expired, StoreError> {
        let mut state = self.state();
        let mut expired = state.expire_envelopes(due.now, batch_max);
        expired.remembered = state.expire_keys(due.remembered_from, batch_max);
        Ok(expired)
    }

    async fn losses(&self, recipient: &ServerName) -> Result<Vec<Loss>, StoreError> {
        Ok(self.state().mailboxes.get(recipient).map(Mailbox::losses).unwrap_or_default())
    }

    async fn standing(&self, recipient: &ServerName) -> Result<(Depth, Vec<Loss>), StoreError> {
        let state = self.state();
        let standing = |mailbox: &Mailbox| (mailbox.depth(), mailbox.losses());
        Ok(state.mailboxes.get(recipient).map(standing).unwrap_or_default())
    }

    async fn forget_losses(
        &self,
        recipient: &ServerName,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        if let Some(mailbox) = self.state().mailboxes.get_mut(recipient) {
            mailbox.forget_losses(until);
        }
        Ok(())
    }

    async fn list(
        &self,
        after: Option<&ServerName>,
        limit: usize,
    ) -> Result<Vec<MailboxSummary>, StoreError> {
        use std::ops::Bound;
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let state = self.state();
        let names = state.mailboxes.range((start, Bound::Unbounded)).take(limit);
        Ok(names.filter_map(|(recipient, _)| state.summary(recipient)).collect())
    }

    async fn health(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl State {
    fn deposit(&mut self, deposit: Deposit, quotas: Quotas, random: u64) -> Deposited {
        if let Some(known) = self.known(&deposit) {
            return match self.mark_known(&deposit, quotas) {
                Some(full) => Deposited::Full(full),
                None => Deposited::Duplicate(known),
            };
        }
        let held = self.held_beside(&deposit, quotas);
        if let Some(full) = quotas.full(held, deposit.bytes()) {
            return self.turn_away(&deposit, full);
        }
        if held.berth == Berth::InsteadOfAnother {
            self.give_up_spent();
        }
        match self.store(deposit.clone(), random) {
            Some(id) => Deposited::Stored(id),
            None => self.turn_away(&deposit, Full::Mailbox),
        }
    }

    /// What is known of it, once it has expired if it is past its time.
    fn known(&mut self, deposit: &Deposit) -> Option<Known> {
        let (key, recipient, now) =
            (DuplicateKey::of(deposit), &deposit.recipient, deposit.deposited_at);
        if let Some(id) = self.held.get(&key).copied() {
            let mailbox = self.mailboxes.get(recipient)?;
            let (since, until) = mailbox.times(id)?;
            if mailbox.hold == Hold::Held || until >= now {
                return Some(Known::Held { since, until });
            }
            let gone = self.remove(recipient, id)?;
            if !gone.is_of_the_moment() {
                self.mailboxes.get_mut(recipient)?.lose(LossKind::Expired, &gone, now);
            }
            return None;
        }
        if self.ahead.meet(&key.ahead_of(recipient), now) {
            self.remember(key, now);
        }
        self.acknowledged.contains_key(&key).then_some(Known::Acknowledged)
    }

    fn remember(&mut self, key: DuplicateKey, at: Timestamp) {
        self.acknowledged.insert(key, at);
        self.keys_by_age.insert((at, key));
    }

    /// Whether it is held or was acknowledged.
    fn knows(&self, deposit: &Deposit) -> bool {
        let key = DuplicateKey::of(deposit);
        self.held.contains_key(&key) || self.acknowledged.contains_key(&key)
    }

    fn held_beside(&self, deposit: &Deposit, quotas: Quotas) -> Held {
        let mailbox = self.mailboxes.get(&deposit.recipient);
        Held {
            mailbox: mailbox.map(Mailbox::load).unwrap_or_default(),
            origin: mailbox.map(|mailbox| mailbox.share(&deposit.origin)).unwrap_or_default(),
            relay: self.load,
            onward: self.onward_beside(deposit),
            berth: self.berth_for(deposit, quotas),
        }
    }

    fn turn_away(&mut self, deposit: &Deposit, full: Full) -> Deposited {
        if let Some(mailbox) = self.mailboxes.get_mut(&deposit.recipient) {
            mailbox.lose(full.into(), deposit, deposit.deposited_at);
        }
        Deposited::Full(full)
    }

    /// Appends to its mailbox, unless no id is left.
    fn store(&mut self, deposit: Deposit, random: u64) -> Option<EntryId> {
        let (key, bytes) = (DuplicateKey::of(&deposit), deposit.bytes());
        let (recipient, expires_at) = (deposit.recipient.clone(), deposit.expires_at);
        let (order, now) = (self.stored, deposit.deposited_at);
        let mailbox = match deposit.onward {
            Onward::No => self.mailbox(&recipient, random, now),
            Onward::Wanted | Onward::Refused => {
                let create = || Mailbox::for_onward(EntryId::first(random), now);
                self.mailboxes.entry(recipient.clone()).or_insert_with(create)
            }
        };
        let id = mailbox.push(deposit, order)?;
        self.stored += 1;
        self.load.add(bytes);
        self.held.insert(key, id);
        self.envelopes_by_expiry.insert((expires_at, order, recipient, id));
        Some(id)
    }

    /// Its mailbox, which is there for all mail from here on.
    fn mailbox(&mut self, recipient: &ServerName, random: u64, now: Timestamp) -> &mut Mailbox {
        let create = || Mailbox::new(EntryId::first(random), now);
        let mailbox = self.mailboxes.entry(recipient.clone()).or_insert_with(create);
        mailbox.holds = Holds::AllMail;
        mailbox
    }

    fn acknowledge(
        &mut self,
        recipient: &ServerName,
        acknowledgements: &[Acknowledgement],
    ) -> Acknowledged {
        let mut acknowledged = Acknowledged::default();
        for Acknowledgement { id, content_hash } in acknowledgements {
            let Some(mailbox) = self.mailboxes.get_mut(recipient) else { break };
            let held = mailbox.content_hash(*id);
            if held.is_none() || content_hash.is_some_and(|hash| Some(hash) != held) {
                continue;
            }
            mailbox.acknowledged_total += 1;
            let Some(deposit) = self.remove(recipient, *id) else { continue };
            self.remember(DuplicateKey::of(&deposit), deposit.deposited_at);
            acknowledged.removed += 1;
        }
        acknowledged
    }

    /// Takes an envelope out of everything that knows it.
    fn remove(&mut self, recipient: &ServerName, id: EntryId) -> Option<Deposit> {
        let (deposit, order) = self.mailboxes.get_mut(recipient)?.remove(id)?;
        self.load.subtract(deposit.bytes());
        self.held.remove(&DuplicateKey::of(&deposit));
        self.envelopes_by_expiry.remove(&(deposit.expires_at, order, recipient.clone(), id));
        Some(deposit)
    }

    fn expire_envelopes(&mut self, now: Timestamp, batch_max: usize) -> Expired {
        let due = self.envelopes_by_expiry.iter().take_while(|(at, ..)| *at < now).take(batch_max);
        let due: Vec<_> = due.cloned().collect();
        let mut expired = Expired::default();
        for (at, order, recipient, id) in due {
            let Some(mailbox) = self.mailboxes.get_mut(&recipient) else { continue };
            if mailbox.hold == Hold::Held {
                let later = now.after(HOLD_GRACE);
                mailbox.prolong(id, later);
                self.envelopes_by_expiry.remove(&(at, order, recipient.clone(), id));
                self.envelopes_by_expiry.insert((later, order, recipient, id));
                expired.prolonged += 1;
            } else if let Some(deposit) = self.remove(&recipient, id) {
                expired.envelopes += 1;
                if deposit.is_of_the_moment() {
                    expired.of_the_moment += 1;
                } else if let Some(mailbox) = self.mailboxes.get_mut(&recipient) {
                    mailbox.lose(LossKind::Expired, &deposit, now);
                }
            }
        }
        expired
    }

    /// Removes an envelope that its recipient never got.
    fn lose(
        &mut self,
        recipient: &ServerName,
        id: EntryId,
        kind: LossKind,
        now: Timestamp,
    ) -> Option<()> {
        let deposit = self.remove(recipient, id)?;
        self.mailboxes.get_mut(recipient)?.lose(kind, &deposit, now);
        Some(())
    }

    fn expire_keys(&mut self, remembered_from: Timestamp, batch_max: usize) -> u64 {
        let mut count = 0;
        while count < batch_max
            && let Some((_, key)) =
                pop_first_if(&mut self.keys_by_age, |(at, _)| *at < remembered_from)
        {
            self.acknowledged.remove(&key);
            count += 1;
        }
        count as u64
    }

    fn summary(&self, recipient: &ServerName) -> Option<MailboxSummary> {
        let mailbox = self.mailboxes.get(recipient)?;
        Some(mailbox.summary(recipient, self.registers.registered(recipient)))
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
        conformance::run_all(async || Arc::new(MemoryStore::new()) as _).await;
    }

    #[test]
    fn behaves_like_the_model_whatever_is_asked() {
        conformance::histories::check(256, || Arc::new(MemoryStore::new()));
    }
}
