//! Mail in memory that is to be delivered onward.

use std::collections::BTreeSet;
use std::ops::Bound;

use async_trait::async_trait;
use restante_federation_proto::{ServerName, Timestamp};

use super::mailbox::{Holds, Mailbox};
use super::{MemoryStore, State};
use crate::duplicate::DuplicateKey;
use crate::rules::{Berth, OnwardHeld};
use crate::{
    Deposit, EntryId, Full, HandedOn, Hold, Onward, OnwardMail, Quotas, Registered, StoreError,
    StoredEnvelope, Withdrawal,
};

impl State {
    /// What the origin of `deposit` has to be delivered onward, if that is what `deposit` is.
    pub(super) fn onward_beside(&self, deposit: &Deposit) -> OnwardHeld {
        let mut onward = OnwardHeld::default();
        if deposit.onward == Onward::No {
            return onward;
        }
        let held = self.mailboxes.values().flat_map(Mailbox::held).map(|(_, held)| held);
        let own = held.filter(|held| held.origin == deposit.origin && held.onward != Onward::No);
        let mut destinations = BTreeSet::new();
        for held in own {
            onward.load.add(held.bytes());
            destinations.insert(&held.recipient);
        }
        if !destinations.contains(&deposit.recipient) {
            onward.other_destinations = Some(destinations.len() as u64);
        }
        onward
    }

    /// Where `deposit` goes.
    pub(super) fn berth_for(&self, deposit: &Deposit, quotas: Quotas) -> Berth {
        let found = self.mailboxes.get(&deposit.recipient).map(|mailbox| mailbox.holds);
        let onward = self.onward_mailboxes();
        match (deposit.onward, found) {
            (_, Some(Holds::AllMail))
            | (Onward::Wanted | Onward::Refused, Some(Holds::OnwardMail)) => Berth::There,
            (Onward::No, _) => Berth::OneMore(self.mailboxes.len() as u64 - onward),
            (Onward::Wanted | Onward::Refused, None) => {
                if onward >= quotas.onward.mailboxes_max && self.first_spent().is_some() {
                    Berth::InsteadOfAnother
                } else {
                    Berth::OneMoreOnward(onward)
                }
            }
        }
    }

    /// How many mailboxes are there for mail to be delivered onward.
    pub(super) fn onward_mailboxes(&self) -> u64 {
        let all = self.mailboxes.values();
        all.filter(|mailbox| mailbox.holds == Holds::OnwardMail).count() as u64
    }

    /// Of those, the empty one that was used longest ago.
    fn first_spent(&self) -> Option<ServerName> {
        let spent = self.mailboxes.iter().filter_map(|(name, mailbox)| {
            let since = mailbox.spent_since()?;
            Some((since, name))
        });
        spent.min().map(|(_, name)| name.clone())
    }

    pub(super) fn give_up_spent(&mut self) {
        if let Some(spent) = self.first_spent() {
            self.mailboxes.remove(&spent);
        }
    }

    /// What lies there already is to be delivered as well, if `deposit` asks for that; or what has no room for it.
    pub(super) fn mark_known(&mut self, deposit: &Deposit, quotas: Quotas) -> Option<Full> {
        if deposit.onward == Onward::No {
            return None;
        }
        let beside = self.onward_beside(deposit);
        let key = DuplicateKey::of(deposit);
        let mailbox = self.mailboxes.get_mut(&deposit.recipient)?;
        let unmarked =
            |_, held: &Deposit| DuplicateKey::of(held) == key && held.onward == Onward::No;
        for id in mailbox.ids(unmarked) {
            if !quotas.onward.have_room(beside, deposit.bytes()) {
                return Some(Full::Share);
            }
            mailbox.mark(id, Onward::Wanted);
        }
        None
    }

    fn wanted<'a>(
        &'a self,
        recipient: &ServerName,
    ) -> impl Iterator<Item = (EntryId, &'a Deposit)> + use<'a> {
        let open = self.mailboxes.get(recipient).filter(|mailbox| mailbox.hold == Hold::Released);
        let held = open.into_iter().flat_map(Mailbox::held);
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
        let origins: BTreeSet<_> = origins.collect();
        Ok(origins.into_iter().take(limit).collect())
    }

    async fn first_onward(
        &self,
        recipient: &ServerName,
        origin: &ServerName,
        now: Timestamp,
    ) -> Result<Option<StoredEnvelope>, StoreError> {
        let state = self.state();
        let is_next = |held: &Deposit| held.origin == *origin && held.expires_at >= now;
        let first = state.wanted(recipient).find(|(_, held)| is_next(held));
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
