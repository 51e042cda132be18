//! What a store must answer: lists, searched from end to end, too simple to be wrong. Pure.

mod onward;

use std::collections::{BTreeMap, BTreeSet};

use restante_federation_proto::{ServerName, Timestamp};

use crate::{
    Acknowledged, Acknowledgement, ContentHash, Deposit, Depth, Due, EntryId, Expired, Full,
    HOLD_GRACE, Hold, LossKind, MailName, MailboxLimits, MailboxSummary, Page, Quotas, Registered,
    Selection, StoredEnvelope, Whereabouts,
};

/// What a store holds, and what it has to remember.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Model {
    held: Vec<StoredEnvelope>,
    remembered: Vec<(Timestamp, Key)>,
    /// What never came, and its recipient has.
    ahead: BTreeSet<Key>,
    ids: Vec<(ServerName, EntryId, ContentHash)>,
    known: BTreeSet<ServerName>,
    /// Mailboxes that are there for nothing but mail to be delivered onward.
    for_onward: BTreeSet<ServerName>,
    /// When mail came last.
    used_at: BTreeMap<ServerName, Timestamp>,
    on_hold: BTreeSet<ServerName>,
    registered: BTreeSet<ServerName>,
    acknowledged_total: BTreeMap<ServerName, u64>,
    delivered_total: BTreeMap<ServerName, u64>,
    passed_on_total: BTreeMap<ServerName, u64>,
    withdrawn_total: BTreeMap<ServerName, u64>,
    expired_total: BTreeMap<ServerName, u64>,
    dropped_total: BTreeMap<ServerName, u64>,
    losses: BTreeMap<(ServerName, LossKind, ServerName), (u64, u64)>,
}

/// What must become of a deposit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Stored,
    Duplicate,
    Full(Full),
}

/// What was lost, without the times.
pub(crate) type Lost = (LossKind, Option<ServerName>, u64, u64);

/// What tells one mail from another.
pub(crate) type Key = (ServerName, ServerName, String, ContentHash);

/// The key of a deposit.
pub(crate) fn key(deposit: &Deposit) -> Key {
    let Deposit { recipient, origin, txn_id, content_hash, .. } = deposit;
    (recipient.clone(), origin.clone(), txn_id.clone(), *content_hash)
}

fn has_room(held: &[&StoredEnvelope], deposit: &Deposit, limits: MailboxLimits) -> bool {
    let bytes: u64 = held.iter().map(|held| held.deposit.bytes()).sum();
    (held.len() as u64) < limits.envelopes_max && bytes + deposit.bytes() <= limits.bytes_max
}

fn key_of(recipient: &ServerName, name: &MailName) -> Key {
    let MailName { origin, txn_id, content_hash } = name;
    (recipient.clone(), origin.clone(), txn_id.clone(), *content_hash)
}

impl Model {
    /// What all mailboxes hold, in the order of deposit.
    #[cfg(test)]
    pub(crate) fn held(&self) -> &[StoredEnvelope] {
        &self.held
    }

    /// Keys of acknowledged mail.
    #[cfg(test)]
    pub(crate) fn remembered(&self) -> u64 {
        self.remembered.len() as u64
    }

    /// Every id that was given out, with whose and what.
    pub(crate) fn ids(&self) -> &[(ServerName, EntryId, ContentHash)] {
        &self.ids
    }

    /// What must become of `deposit`.
    pub(crate) fn verdict(&self, deposit: &Deposit, quotas: Quotas) -> Verdict {
        if self.is_to_be_marked(deposit) && !self.has_room_onward(deposit, quotas) {
            return Verdict::Full(Full::Share);
        }
        if self.knows(deposit) {
            return Verdict::Duplicate;
        }
        let mailbox = self.mailbox(&deposit.recipient);
        let share = mailbox.iter().copied().filter(|held| held.deposit.origin == deposit.origin);
        let share: Vec<_> = share.collect();
        let all: Vec<_> = self.held.iter().collect();
        let bounds = [
            (has_room(&mailbox, deposit, quotas.mailbox), Full::Mailbox),
            (has_room(&share, deposit, quotas.origin), Full::Share),
            (self.has_room_onward(deposit, quotas), Full::Share),
            (self.has_berth(deposit, quotas), Full::Mailbox),
            (has_room(&all, deposit, quotas.relay), Full::Relay),
        ];
        let without_room = bounds.into_iter().find(|(has_room, _)| !has_room);
        without_room.map_or(Verdict::Stored, |(_, full)| Verdict::Full(full))
    }

    fn knows(&self, deposit: &Deposit) -> bool {
        let sought = key(deposit);
        self.holds(&sought).is_some() || self.remembers(&sought) || self.ahead.contains(&sought)
    }

    /// It was a duplicate: if its recipient had it ahead, it counts as come and acknowledged.
    pub(crate) fn meet(&mut self, deposit: &Deposit) {
        let key = key(deposit);
        if self.ahead.remove(&key) {
            self.remembered.push((deposit.deposited_at, key));
        }
    }

    /// The store was started anew.
    #[cfg(test)]
    pub(crate) fn restart(&mut self) {
        self.ahead.clear();
    }

    fn holds(&self, sought: &Key) -> Option<&StoredEnvelope> {
        self.held.iter().find(|held| key(&held.deposit) == *sought)
    }

    fn remembers(&self, sought: &Key) -> bool {
        self.remembered.iter().any(|(_, known)| known == sought)
    }

    /// What became of mail.
    pub(crate) fn whereabouts(
        &self,
        recipient: &ServerName,
        name: &MailName,
        now: Timestamp,
    ) -> Whereabouts {
        let sought = key_of(recipient, name);
        match self.holds(&sought) {
            Some(held) if self.on_hold.contains(recipient) || held.deposit.expires_at >= now => {
                Whereabouts::Held
            }
            Some(_) => Whereabouts::Unknown,
            None if self.remembers(&sought) => Whereabouts::Acknowledged,
            None => Whereabouts::Unknown,
        }
    }

    /// Removes what its owner has from elsewhere, and remembers the rest for whoever is registered.
    pub(crate) fn acknowledge_copies(
        &mut self,
        recipient: &ServerName,
        copies: &[MailName],
    ) -> Acknowledged {
        let mut acknowledged = Acknowledged::default();
        for name in copies {
            let sought = key_of(recipient, name);
            if let Some(id) = self.holds(&sought).map(|held| held.id) {
                let one = [Acknowledgement { id, content_hash: None }];
                acknowledged.removed += self.acknowledge(recipient, &one).removed;
            } else if self.registered.contains(recipient) && !self.remembers(&sought) {
                self.ahead.insert(sought);
            }
        }
        acknowledged
    }

    /// It was turned away. What is held all the same is not lost.
    pub(crate) fn turn_away(&mut self, deposit: &Deposit, full: Full) {
        if self.known.contains(&deposit.recipient) && self.holds(&key(deposit)).is_none() {
            self.lose(deposit, full.into());
        }
    }

    fn lose(&mut self, deposit: &Deposit, kind: LossKind) {
        let key = (deposit.recipient.clone(), kind, deposit.origin.clone());
        let (count, bytes) = self.losses.entry(key).or_default();
        *count += 1;
        *bytes += deposit.bytes();
    }

    /// It was stored under `id`; an `Err` if that id must not have been given out.
    pub(crate) fn store(&mut self, id: EntryId, deposit: Deposit) -> Result<(), String> {
        let earlier = self.ids.iter().filter(|(recipient, ..)| *recipient == deposit.recipient);
        if let Some(last) = earlier.map(|(_, earlier, _)| *earlier).max().filter(|last| id <= *last)
        {
            return Err(format!("ids do not ascend: {id:?} after {last:?}"));
        }
        self.ids.push((deposit.recipient.clone(), id, deposit.content_hash));
        self.note_what_it_is_for(&deposit);
        self.known.insert(deposit.recipient.clone());
        self.held.push(StoredEnvelope { id, deposit });
        Ok(())
    }

    /// What a collect returns.
    pub(crate) fn page(
        &self,
        recipient: &ServerName,
        after: Option<EntryId>,
        page: Page,
    ) -> Vec<StoredEnvelope> {
        let mut taken: Vec<StoredEnvelope> = Vec::new();
        let open = !self.on_hold.contains(recipient);
        for held in self.mailbox(recipient).into_iter().filter(|_| open) {
            if after.is_some_and(|after| held.id <= after) {
                continue;
            }
            let bytes: u64 = taken.iter().map(|taken| taken.deposit.bytes()).sum();
            let fits = bytes + held.deposit.bytes() <= page.bytes_max as u64;
            if taken.len() >= page.envelopes_max || !(taken.is_empty() || fits) {
                break;
            }
            taken.push(held.clone());
        }
        taken
    }

    /// Removes what its owner has.
    pub(crate) fn acknowledge(
        &mut self,
        recipient: &ServerName,
        acknowledgements: &[Acknowledgement],
    ) -> Acknowledged {
        let named = |held: &StoredEnvelope| {
            held.deposit.recipient == *recipient
                && acknowledgements.iter().any(|named| {
                    named.id == held.id
                        && named.content_hash.is_none_or(|hash| hash == held.deposit.content_hash)
                })
        };
        let (gone, kept): (Vec<_>, Vec<_>) = self.held.drain(..).partition(named);
        self.held = kept;
        let removed = gone.len() as u64;
        *self.acknowledged_total.entry(recipient.clone()).or_default() += removed;
        self.remembered
            .extend(gone.iter().map(|held| (held.deposit.deposited_at, key(&held.deposit))));
        Acknowledged { removed }
    }

    /// Removes what is past its time, what came first of what is due at the same time.
    pub(crate) fn expire(&mut self, due: Due, batch_max: usize) -> Expired {
        let mut past: Vec<_> =
            self.held.iter().filter(|held| held.deposit.expires_at < due.now).cloned().collect();
        past.sort_by_key(|held| held.deposit.expires_at);
        past.truncate(batch_max);
        let mut expired = Expired::default();
        for held in past {
            let recipient = &held.deposit.recipient;
            if self.on_hold.contains(recipient) {
                expired.prolonged += 1;
                self.prolong(&held, due.now.after(HOLD_GRACE));
            } else {
                expired.envelopes += 1;
                self.held.retain(|other| *other != held);
                if held.deposit.is_of_the_moment() {
                    expired.of_the_moment += 1;
                    continue;
                }
                *self.expired_total.entry(recipient.clone()).or_default() += 1;
                self.lose(&held.deposit, LossKind::Expired);
            }
        }
        let (mut old, mut young): (Vec<_>, Vec<_>) =
            self.remembered.drain(..).partition(|(at, _)| *at < due.remembered_from);
        old.sort();
        young.extend(old.split_off(batch_max.min(old.len())));
        self.remembered = young;
        Expired { remembered: old.len() as u64, ..expired }
    }

    fn prolong(&mut self, envelope: &StoredEnvelope, expires_at: Timestamp) {
        for held in self.held.iter_mut().filter(|held| *held == envelope) {
            held.deposit.expires_at = expires_at;
        }
    }

    /// Stops or goes on handing mail out; whether there is such a mailbox.
    pub(crate) fn set(&mut self, recipient: &ServerName, hold: Hold) -> bool {
        match hold {
            Hold::Held if self.known.contains(recipient) => {
                self.on_hold.insert(recipient.clone());
            }
            _ => drop(self.on_hold.remove(recipient)),
        }
        self.known.contains(recipient)
    }

    /// Removes what the operator selects.
    pub(crate) fn drop_mail(&mut self, recipient: &ServerName, selection: &Selection) -> u64 {
        let is_meant = |held: &StoredEnvelope| {
            held.deposit.recipient == *recipient
                && match selection {
                    Selection::All => true,
                    Selection::Envelope(id) => held.id == *id,
                    Selection::Origin(origin) => held.deposit.origin == *origin,
                }
        };
        let (gone, kept): (Vec<_>, Vec<_>) = self.held.drain(..).partition(is_meant);
        self.held = kept;
        *self.dropped_total.entry(recipient.clone()).or_default() += gone.len() as u64;
        gone.iter().for_each(|held| self.lose(&held.deposit, LossKind::Dropped));
        gone.len() as u64
    }

    /// It has registered.
    pub(crate) fn register(&mut self, recipient: &ServerName) {
        self.known.insert(recipient.clone());
        self.for_onward.remove(recipient);
        self.registered.insert(recipient.clone());
    }

    /// It leaves, and its mail stays.
    pub(crate) fn unregister(&mut self, recipient: &ServerName) {
        self.registered.remove(recipient);
        self.ahead.retain(|(whose, ..)| whose != recipient);
    }

    /// It leaves, and its mail with it.
    pub(crate) fn leave(&mut self, recipient: &ServerName) -> u64 {
        self.unregister(recipient);
        let dropped = self.drop_mail(recipient, &Selection::All);
        self.forget_losses(recipient);
        self.used_at.remove(recipient);
        dropped
    }

    /// What `recipient` never got.
    pub(crate) fn losses(&self, recipient: &ServerName) -> Vec<Lost> {
        let own = self.losses.iter().filter(|((whose, ..), _)| whose == recipient);
        let lost = own.map(|((_, kind, origin), (count, bytes))| {
            (*kind, Some(origin.clone()), *count, *bytes)
        });
        lost.collect()
    }

    /// It knows.
    pub(crate) fn forget_losses(&mut self, recipient: &ServerName) {
        self.losses.retain(|(whose, ..), _| whose != recipient);
    }

    /// Each origin's envelopes and bytes in a mailbox.
    pub(crate) fn shares(&self, recipient: &ServerName) -> Vec<(ServerName, u64, u64)> {
        let mut shares: BTreeMap<ServerName, (u64, u64)> = BTreeMap::new();
        for held in self.mailbox(recipient) {
            let (envelopes, bytes) = shares.entry(held.deposit.origin.clone()).or_default();
            *envelopes += 1;
            *bytes += held.deposit.bytes();
        }
        shares.into_iter().map(|(origin, (envelopes, bytes))| (origin, envelopes, bytes)).collect()
    }

    /// The list of mailboxes.
    pub(crate) fn summaries(&self) -> Vec<MailboxSummary> {
        self.known.iter().map(|recipient| self.summary(recipient)).collect()
    }

    fn summary(&self, recipient: &ServerName) -> MailboxSummary {
        let held = self.mailbox(recipient);
        let total =
            |totals: &BTreeMap<ServerName, u64>| totals.get(recipient).copied().unwrap_or_default();
        MailboxSummary {
            recipient: recipient.clone(),
            depth: Depth {
                count: held.len() as u64,
                bytes: held.iter().map(|held| held.deposit.bytes()).sum(),
                oldest_at: held.first().map(|held| held.deposit.deposited_at),
            },
            quarantined: 0,
            acknowledged_total: total(&self.acknowledged_total),
            delivered_total: total(&self.delivered_total),
            passed_on_total: total(&self.passed_on_total),
            withdrawn_total: total(&self.withdrawn_total),
            expired_total: total(&self.expired_total),
            dropped_total: total(&self.dropped_total),
            hold: if self.on_hold.contains(recipient) { Hold::Held } else { Hold::Released },
            registered: if self.registered.contains(recipient) {
                Registered::Yes
            } else {
                Registered::No
            },
        }
    }

    fn mailbox(&self, recipient: &ServerName) -> Vec<&StoredEnvelope> {
        self.held.iter().filter(|held| held.deposit.recipient == *recipient).collect()
    }
}
