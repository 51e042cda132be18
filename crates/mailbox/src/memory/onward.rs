//! Mail in memory that is to be delivered onward.

use std::ops::Bound;

use async_trait::async_trait;
use restante_federation_proto::ServerName;

use super::{MemoryStore, State};
use crate::duplicate::DuplicateKey;
use crate::rules::{Held, Load};
use crate::{
    Deposit, EntryId, HandedOn, Hold, Onward, OnwardMail, Quotas, Registered, StoreError,
    StoredEnvelope, Withdrawal,
};

impl State {
    /// What the origin of `deposit` has to be delivered onward, if that is what `deposit` is.
    pub(super) fn onward_load_for(&self, deposit: &Deposit) -> Load {
        let mut load = Load::default();
        if deposit.onward == Onward::No {
            return load;
        }
        let held = self.mailboxes.values().flat_map(super::Mailbox::held);
        let own = held.map(|(_, held)| held).filter(|held| held.origin == deposit.origin);
        own.filter(|held| held.onward != Onward::No).for_each(|held| load.add(held.bytes()));
        load
    }

    /// What lies there already is to be delivered as well, if `deposit` asks for that and there is room.
    pub(super) fn mark_known(&mut self, deposit: &Deposit, quotas: Quotas) {
        let held = Held { onward: self.onward_load_for(deposit), ..Held::default() };
        if deposit.onward == Onward::No || !quotas.has_room_onward(held, deposit.bytes()) {
            return;
        }
        let key = DuplicateKey::of(deposit);
        let Some(mailbox) = self.mailboxes.get_mut(&deposit.recipient) else { return };
        let ids = mailbox.ids(|_, held| DuplicateKey::of(held) == key && held.onward == Onward::No);
        ids.into_iter().for_each(|id| mailbox.mark(id, Onward::Wanted));
    }

    fn wanted<'a>(
        &'a self,
        recipient: &ServerName,
    ) -> impl Iterator<Item = (EntryId, &'a Deposit)> + use<'a> {
        let open = self.mailboxes.get(recipient).filter(|mailbox| mailbox.hold == Hold::Released);
        let held = open.into_iter().flat_map(super::Mailbox::held);
        held.filter(|(_, held)| held.onward == Onward::Wanted)
    }

    fn hand_on(&mut self, recipient: &ServerName, id: EntryId, way: HandedOn) -> bool {
        let Some(deposit) = self.remove(recipient, id) else { return false };
        if let Some(mailbox) = self.mailboxes.get_mut(recipient) {
            match way {
                HandedOn::Delivered => mailbox.delivered_total += 1,
                HandedOn::PassedOn => mailbox.passed_on_total += 1,
            }
        }
        let (key, at) = (DuplicateKey::of(&deposit), deposit.deposited_at);
        self.acknowledged.insert(key, at);
        self.keys_by_age.insert((at, key));
        true
    }

    fn withdraw(&mut self, origin: &ServerName, withdrawal: &Withdrawal) -> u64 {
        let Withdrawal { recipient, txn_id, content_hash } = withdrawal;
        let is_meant = |_, held: &Deposit| {
            held.origin == *origin
                && held.txn_id == *txn_id
                && held.content_hash == *content_hash
                && held.onward != Onward::No
        };
        let registered = self.registers.registered(recipient);
        let ids = self.mailboxes.get(recipient).map(|mailbox| mailbox.ids(is_meant));
        let ids = ids.unwrap_or_default();
        for id in &ids {
            if registered == Registered::No {
                self.remove(recipient, *id);
            }
            let Some(mailbox) = self.mailboxes.get_mut(recipient) else { continue };
            match registered {
                Registered::No => mailbox.withdrawn_total += 1,
                Registered::Yes => mailbox.mark(*id, Onward::No),
            }
        }
        ids.len() as u64
    }
}

#[async_trait]
impl OnwardMail for MemoryStore {
    async fn awaited_by(
        &self,
        after: Option<&ServerName>,
        limit: usize,
    ) -> Result<Vec<ServerName>, StoreError> {
        let state = self.state();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let names = state.mailboxes.range::<ServerName, _>((start, Bound::Unbounded));
        let names = names.map(|(name, _)| name);
        let waiting = names.filter(|name| state.wanted(name).next().is_some());
        Ok(waiting.take(limit).cloned().collect())
    }

    async fn awaiting(
        &self,
        recipient: &ServerName,
        after: Option<&ServerName>,
        limit: usize,
    ) -> Result<Vec<ServerName>, StoreError> {
        let state = self.state();
        let origins = state.wanted(recipient).map(|(_, held)| held.origin.clone());
        let origins = origins.filter(|origin| after.is_none_or(|after| origin > after));
        let origins: std::collections::BTreeSet<_> = origins.collect();
        Ok(origins.into_iter().take(limit).collect())
    }

    async fn first_onward(
        &self,
        recipient: &ServerName,
        origin: &ServerName,
    ) -> Result<Option<StoredEnvelope>, StoreError> {
        let state = self.state();
        let first = state.wanted(recipient).find(|(_, held)| held.origin == *origin);
        Ok(first.map(|(id, deposit)| StoredEnvelope { id, deposit: deposit.clone() }))
    }

    async fn hand_on(
        &self,
        recipient: &ServerName,
        id: EntryId,
        way: HandedOn,
    ) -> Result<bool, StoreError> {
        Ok(self.state().hand_on(recipient, id, way))
    }

    async fn refuse_onward(&self, recipient: &ServerName, id: EntryId) -> Result<(), StoreError> {
        let mut state = self.state();
        let Some(mailbox) = state.mailboxes.get_mut(recipient) else { return Ok(()) };
        let is_wanted =
            |held: EntryId, deposit: &Deposit| held == id && deposit.onward == Onward::Wanted;
        mailbox.ids(is_wanted).into_iter().for_each(|id| mailbox.mark(id, Onward::Refused));
        Ok(())
    }

    async fn withdraw(
        &self,
        origin: &ServerName,
        withdrawals: &[Withdrawal],
    ) -> Result<u64, StoreError> {
        let mut state = self.state();
        Ok(withdrawals.iter().map(|withdrawal| state.withdraw(origin, withdrawal)).sum())
    }
}
