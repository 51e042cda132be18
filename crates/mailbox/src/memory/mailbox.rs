//! One mailbox in memory.

use std::collections::BTreeMap;
use std::ops::Bound;

use restante_federation_proto::{ServerName, Timestamp};

use crate::duplicate::DuplicateKey;
use crate::losses::{self, LOSS_ORIGINS_MAX};
use crate::rules::Load;
use crate::{
    Condition, ContentHash, Deposit, Depth, EntryId, EnvelopeLine, Hold, Loss, LossKind,
    MailboxSummary, Onward, Page, Registered, Share, StoredEnvelope,
};

/// What a mailbox is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    AllMail,
    /// Nothing but mail to be delivered onward was ever left in it, and its server never registered.
    OnwardMail,
}

#[derive(Debug)]
pub(super) struct Mailbox {
    pub(super) holds: Holds,
    envelopes: BTreeMap<EntryId, Kept>,
    bytes: u64,
    /// What each origin has; origins with nothing are not there.
    shares: BTreeMap<ServerName, Load>,
    losses: BTreeMap<(LossKind, Option<ServerName>), Loss>,
    last_loss: Option<Timestamp>,
    /// When mail came last.
    used_at: Timestamp,
    /// The highest id given out; at first the one before the first.
    last: EntryId,
    pub(super) hold: Hold,
    pub(super) acknowledged_total: u64,
    pub(super) delivered_total: u64,
    pub(super) passed_on_total: u64,
    pub(super) withdrawn_total: u64,
    expired_total: u64,
    dropped_total: u64,
}

#[derive(Debug)]
struct Kept {
    deposit: Deposit,
    /// Which envelope of the store it is.
    order: u64,
}

impl Mailbox {
    pub(super) fn new(before_first: EntryId, used_at: Timestamp) -> Self {
        Self {
            holds: Holds::AllMail,
            envelopes: BTreeMap::new(),
            bytes: 0,
            shares: BTreeMap::new(),
            losses: BTreeMap::new(),
            last_loss: None,
            used_at,
            last: before_first,
            hold: Hold::Released,
            acknowledged_total: 0,
            delivered_total: 0,
            passed_on_total: 0,
            withdrawn_total: 0,
            expired_total: 0,
            dropped_total: 0,
        }
    }

    /// One that is there for mail to be delivered onward.
    pub(super) fn for_onward(before_first: EntryId, used_at: Timestamp) -> Self {
        Self { holds: Holds::OnwardMail, ..Self::new(before_first, used_at) }
    }

    /// When it was used last, if it was there for mail to be delivered onward and is empty.
    pub(super) fn spent_since(&self) -> Option<Timestamp> {
        let is_spent = self.holds == Holds::OnwardMail
            && self.hold == Hold::Released
            && self.envelopes.is_empty();
        is_spent.then_some(self.used_at)
    }

    /// Appends, unless no id is left.
    pub(super) fn push(&mut self, deposit: Deposit, order: u64) -> Option<EntryId> {
        let id = self.last.next()?;
        self.last = id;
        self.bytes += deposit.bytes();
        self.used_at = self.used_at.max(deposit.deposited_at);
        self.shares.entry(deposit.origin.clone()).or_default().add(deposit.bytes());
        self.envelopes.insert(id, Kept { deposit, order });
        Some(id)
    }

    pub(super) fn page(&self, after: Option<EntryId>, page: Page) -> Vec<StoredEnvelope> {
        let mut bytes = 0;
        let mut envelopes = Vec::new();
        for (id, Kept { deposit, .. }) in self.after(after) {
            bytes += deposit.bytes();
            let too_big = bytes > page.bytes_max as u64 && !envelopes.is_empty();
            if envelopes.len() >= page.envelopes_max || too_big {
                break;
            }
            envelopes.push(StoredEnvelope { id: *id, deposit: deposit.clone() });
        }
        envelopes
    }

    fn after(&self, after: Option<EntryId>) -> impl Iterator<Item = (&EntryId, &Kept)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.envelopes.range((start, Bound::Unbounded))
    }

    /// The content under that id.
    pub(super) fn content_hash(&self, id: EntryId) -> Option<ContentHash> {
        self.envelopes.get(&id).map(|kept| kept.deposit.content_hash)
    }

    /// The key of the envelope under that id.
    pub(super) fn key(&self, id: EntryId) -> Option<DuplicateKey> {
        self.envelopes.get(&id).map(|kept| DuplicateKey::of(&kept.deposit))
    }

    /// When the envelope under that id was deposited, and when it expires.
    pub(super) fn times(&self, id: EntryId) -> Option<(Timestamp, Timestamp)> {
        let Kept { deposit, .. } = self.envelopes.get(&id)?;
        Some((deposit.deposited_at, deposit.expires_at))
    }

    /// The ids of all envelopes that `chosen` chooses.
    pub(super) fn ids(&self, chosen: impl Fn(EntryId, &Deposit) -> bool) -> Vec<EntryId> {
        let chosen = self.envelopes.iter().filter(|(id, kept)| chosen(**id, &kept.deposit));
        chosen.map(|(id, _)| *id).collect()
    }

    pub(super) fn remove(&mut self, id: EntryId) -> Option<(Deposit, u64)> {
        let Kept { deposit, order } = self.envelopes.remove(&id)?;
        self.bytes -= deposit.bytes();
        if let Some(share) = self.shares.get_mut(&deposit.origin) {
            share.subtract(deposit.bytes());
            if share.envelopes == 0 {
                self.shares.remove(&deposit.origin);
            }
        }
        Some((deposit, order))
    }

    pub(super) fn prolong(&mut self, id: EntryId, expires_at: Timestamp) {
        if let Some(kept) = self.envelopes.get_mut(&id) {
            kept.deposit.expires_at = expires_at;
        }
    }

    /// Marks an envelope anew.
    pub(super) fn mark(&mut self, id: EntryId, onward: Onward) {
        if let Some(kept) = self.envelopes.get_mut(&id) {
            kept.deposit.onward = onward;
        }
    }

    /// All that it holds, in the order of its ids.
    pub(super) fn held(&self) -> impl Iterator<Item = (EntryId, &Deposit)> {
        self.envelopes.iter().map(|(id, kept)| (*id, &kept.deposit))
    }

    /// Counts `deposit` as lost.
    pub(super) fn lose(&mut self, kind: LossKind, deposit: &Deposit, now: Timestamp) {
        match kind {
            LossKind::Expired => self.expired_total += 1,
            LossKind::Dropped => self.dropped_total += 1,
            LossKind::MailboxFull | LossKind::ShareFull | LossKind::RelayFull => {}
        }
        let until = losses::until(now, self.last_loss);
        self.last_loss = Some(until);
        let key = self.loss_key(kind, &deposit.origin);
        let origin = key.1.clone();
        let new = Loss { kind, origin, count: 0, bytes: 0, since: now, until };
        let loss = self.losses.entry(key).or_insert(new);
        loss.count += 1;
        loss.bytes += deposit.bytes();
        loss.until = until;
    }

    fn loss_key(&self, kind: LossKind, origin: &ServerName) -> (LossKind, Option<ServerName>) {
        let own = (kind, Some(origin.clone()));
        let named = self.losses.keys().filter(|(other, origin)| *other == kind && origin.is_some());
        if self.losses.contains_key(&own) || named.count() < LOSS_ORIGINS_MAX {
            own
        } else {
            (kind, None)
        }
    }

    pub(super) fn losses(&self) -> Vec<Loss> {
        self.losses.values().cloned().collect()
    }

    pub(super) fn forget_losses(&mut self, until: Timestamp) {
        self.losses.retain(|_, loss| loss.until > until);
    }

    /// Whether nothing was in it or lost from it since.
    pub(super) fn is_unused(&self, before: Timestamp) -> bool {
        self.hold == Hold::Released
            && self.envelopes.is_empty()
            && self.used_at < before
            && self.last_loss.is_none_or(|last| last < before)
    }

    /// Its owner has left for good.
    pub(super) fn give_up(&mut self) {
        self.losses.clear();
        if self.envelopes.is_empty() {
            (self.used_at, self.last_loss) = (Timestamp::EPOCH, None);
        }
    }

    pub(super) fn load(&self) -> Load {
        Load { envelopes: self.envelopes.len() as u64, bytes: self.bytes }
    }

    /// What `origin` has here.
    pub(super) fn share(&self, origin: &ServerName) -> Load {
        self.shares.get(origin).copied().unwrap_or_default()
    }

    pub(super) fn shares(&self, after: Option<&ServerName>, limit: usize) -> Vec<Share> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let shares = self.shares.range::<ServerName, _>((start, Bound::Unbounded)).take(limit);
        let share = |(origin, load): (&ServerName, &Load)| {
            let Load { envelopes, bytes } = *load;
            Share { origin: origin.clone(), envelopes, bytes }
        };
        shares.map(share).collect()
    }

    pub(super) fn lines(&self, after: Option<EntryId>, limit: usize) -> Vec<EnvelopeLine> {
        let line = |(id, Kept { deposit, .. }): (&EntryId, &Kept)| EnvelopeLine {
            id: *id,
            origin: deposit.origin.to_string(),
            txn_id: deposit.txn_id.clone(),
            deposited_at: deposit.deposited_at,
            expires_at: deposit.expires_at,
            bytes: deposit.bytes(),
            condition: Condition::Whole,
            onward: deposit.onward,
        };
        self.after(after).take(limit).map(line).collect()
    }

    pub(super) fn depth(&self) -> Depth {
        let first = self.envelopes.first_key_value();
        Depth {
            count: self.envelopes.len() as u64,
            bytes: self.bytes,
            oldest_at: first.map(|(_, kept)| kept.deposit.deposited_at),
        }
    }

    pub(super) fn summary(&self, recipient: &ServerName, registered: Registered) -> MailboxSummary {
        MailboxSummary {
            recipient: recipient.clone(),
            depth: self.depth(),
            quarantined: 0,
            acknowledged_total: self.acknowledged_total,
            delivered_total: self.delivered_total,
            passed_on_total: self.passed_on_total,
            withdrawn_total: self.withdrawn_total,
            expired_total: self.expired_total,
            dropped_total: self.dropped_total,
            hold: self.hold,
            registered,
        }
    }
}
