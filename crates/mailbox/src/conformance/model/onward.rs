//! What a store must answer of mail that is to be delivered onward.

use std::collections::{BTreeMap, BTreeSet};

use restante_federation_proto::{ServerName, Timestamp};

use super::{Model, has_room, key};
use crate::{Deposit, EntryId, HandedOn, Onward, Quotas, StoredEnvelope, Withdrawal};

impl Model {
    /// All that the origin of `deposit` has to be delivered onward, if `deposit` is to be.
    fn onward_of(&self, deposit: &Deposit) -> Vec<&StoredEnvelope> {
        let own = self.held.iter().filter(|held| {
            held.deposit.origin == deposit.origin
                && held.deposit.onward != Onward::No
                && deposit.onward != Onward::No
        });
        own.collect()
    }

    pub(super) fn has_room_onward(&self, deposit: &Deposit, quotas: Quotas) -> bool {
        if deposit.onward == Onward::No {
            return true;
        }
        let own = self.onward_of(deposit);
        let mut destinations: BTreeSet<_> =
            own.iter().map(|held| held.deposit.recipient.clone()).collect();
        let is_another = destinations.insert(deposit.recipient.clone());
        let are_few = destinations.len() as u64 <= quotas.onward.destinations_max;
        has_room(&own, deposit, quotas.onward.origin) && (are_few || !is_another)
    }

    /// Whether there is a mailbox for it, or may be one more.
    pub(super) fn has_berth(&self, deposit: &Deposit, quotas: Quotas) -> bool {
        let is_there = self.known.contains(&deposit.recipient);
        let for_onward = self.for_onward.len();
        if deposit.onward != Onward::No {
            let max = quotas.onward.mailboxes_max;
            return is_there || (for_onward as u64) < max || self.first_spent().is_some();
        }
        let is_for_all = is_there && !self.for_onward.contains(&deposit.recipient);
        is_for_all || ((self.known.len() - for_onward) as u64) < quotas.mailboxes_max
    }

    /// Of the mailboxes that are there for mail to be delivered onward, the empty one that was used longest ago.
    fn first_spent(&self) -> Option<ServerName> {
        let spent = self
            .for_onward
            .iter()
            .filter(|name| !self.on_hold.contains(*name) && self.mailbox(name).is_empty());
        spent.min_by_key(|name| (self.used_at.get(*name).copied(), (*name).clone())).cloned()
    }

    /// An empty mailbox makes room for that of `deposit`, which is stored next, if it has to.
    pub(crate) fn make_room(&mut self, deposit: &Deposit, quotas: Quotas) {
        let is_another = deposit.onward != Onward::No && !self.known.contains(&deposit.recipient);
        if !is_another || (self.for_onward.len() as u64) < quotas.onward.mailboxes_max {
            return;
        }
        let Some(spent) = self.first_spent() else { return };
        self.known.remove(&spent);
        self.for_onward.remove(&spent);
        self.used_at.remove(&spent);
        self.ids.retain(|(whose, ..)| *whose != spent);
        self.forget_losses(&spent);
        for totals in [
            &mut self.acknowledged_total,
            &mut self.delivered_total,
            &mut self.passed_on_total,
            &mut self.withdrawn_total,
            &mut self.expired_total,
            &mut self.dropped_total,
        ] {
            totals.remove(&spent);
        }
    }

    /// `deposit` is stored.
    pub(super) fn note_what_it_is_for(&mut self, deposit: &Deposit) {
        let recipient = &deposit.recipient;
        if deposit.onward == Onward::No {
            self.for_onward.remove(recipient);
        } else if !self.known.contains(recipient) {
            self.for_onward.insert(recipient.clone());
        }
        let used_at = self.used_at.entry(recipient.clone()).or_insert(deposit.deposited_at);
        *used_at = deposit.deposited_at.max(*used_at);
    }

    /// How many mailboxes are there for nothing but such mail.
    pub(crate) fn onward_mailboxes(&self) -> u64 {
        self.for_onward.len() as u64
    }

    /// Whether it lies there, and is to be delivered onward only if it is left again so.
    pub(super) fn is_to_be_marked(&self, deposit: &Deposit) -> bool {
        let held = self.holds(&key(deposit));
        deposit.onward != Onward::No && held.is_some_and(|held| held.deposit.onward == Onward::No)
    }

    /// What it is a duplicate of is to be delivered onward from here on, if `deposit` asks for that.
    pub(crate) fn mark_known(&mut self, deposit: &Deposit) {
        let sought = key(deposit);
        for held in &mut self.held {
            if key(&held.deposit) == sought && held.deposit.onward == Onward::No {
                held.deposit.onward = deposit.onward;
            }
        }
    }

    fn is_to_deliver(&self, held: &StoredEnvelope) -> bool {
        held.deposit.onward == Onward::Wanted && !self.on_hold.contains(&held.deposit.recipient)
    }

    /// For whom mail is to be delivered.
    pub(crate) fn awaited_by(&self) -> Vec<ServerName> {
        let waiting = self.held.iter().filter(|held| self.is_to_deliver(held));
        let names: BTreeSet<_> = waiting.map(|held| held.deposit.recipient.clone()).collect();
        names.into_iter().collect()
    }

    /// Whose mail is to be delivered to `recipient`, each with what comes first of what is not past its time.
    pub(crate) fn awaiting(
        &self,
        recipient: &ServerName,
        now: Timestamp,
    ) -> Vec<(ServerName, Option<StoredEnvelope>)> {
        let mut first = BTreeMap::new();
        for held in self.mailbox(recipient).into_iter().filter(|held| self.is_to_deliver(held)) {
            let next = first.entry(held.deposit.origin.clone()).or_insert(None);
            if next.is_none() && held.deposit.expires_at >= now {
                *next = Some(held.clone());
            }
        }
        first.into_iter().collect()
    }

    /// It was delivered.
    pub(crate) fn hand_on(&mut self, recipient: &ServerName, id: EntryId, way: HandedOn) -> bool {
        let is_meant =
            |held: &StoredEnvelope| held.deposit.recipient == *recipient && held.id == id;
        let Some(index) = self.held.iter().position(is_meant) else { return false };
        let held = self.held.remove(index);
        let totals = match way {
            HandedOn::Delivered => &mut self.delivered_total,
            HandedOn::PassedOn => &mut self.passed_on_total,
        };
        *totals.entry(recipient.clone()).or_default() += 1;
        self.remembered.push((held.deposit.deposited_at, key(&held.deposit)));
        true
    }

    /// Its recipient refused it.
    pub(crate) fn refuse_onward(&mut self, recipient: &ServerName, id: EntryId) {
        for held in &mut self.held {
            let is_meant = held.deposit.recipient == *recipient && held.id == id;
            if is_meant && held.deposit.onward == Onward::Wanted {
                held.deposit.onward = Onward::Refused;
            }
        }
    }

    /// Its origin takes it back.
    pub(crate) fn withdraw(&mut self, origin: &ServerName, withdrawal: &Withdrawal) -> u64 {
        let Withdrawal { recipient, txn_id, content_hash } = withdrawal.clone();
        let sought = (recipient, origin.clone(), txn_id, content_hash);
        let is_meant = |held: &StoredEnvelope| {
            key(&held.deposit) == sought && held.deposit.onward != Onward::No
        };
        let Some(index) = self.held.iter().position(is_meant) else { return 0 };
        let recipient = self.held[index].deposit.recipient.clone();
        if self.registered.contains(&recipient) {
            self.held[index].deposit.onward = Onward::No;
        } else {
            self.held.remove(index);
            *self.withdrawn_total.entry(recipient).or_default() += 1;
        }
        1
    }
}
