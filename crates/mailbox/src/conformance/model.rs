//! What a store must answer: lists, searched from end to end, too simple to be wrong. Pure.

use std::collections::{BTreeMap, BTreeSet};

use restante_federation_proto::{ServerName, Timestamp};

use crate::{
    Acknowledged, Acknowledgement, ContentHash, Deposit, Depth, EntryId, Expired, MailboxLimits,
    MailboxSummary, Page, StoredEnvelope,
};

/// What a store holds, and what it has to remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Model {
    limits: MailboxLimits,
    held: Vec<StoredEnvelope>,
    remembered: Vec<(Timestamp, Key)>,
    ids: Vec<(ServerName, EntryId, ContentHash)>,
    known: BTreeSet<ServerName>,
    acknowledged_total: BTreeMap<ServerName, u64>,
    expired_total: BTreeMap<ServerName, u64>,
}

/// What must become of a deposit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Stored,
    Duplicate,
    MailboxFull,
}

/// What tells one mail from another.
pub(crate) type Key = (ServerName, ServerName, String, ContentHash);

/// The key of a deposit.
pub(crate) fn key(deposit: &Deposit) -> Key {
    let Deposit { recipient, origin, txn_id, content_hash, .. } = deposit;
    (recipient.clone(), origin.clone(), txn_id.clone(), *content_hash)
}

impl Model {
    /// An empty store.
    pub(crate) fn new(limits: MailboxLimits) -> Self {
        Self {
            limits,
            held: Vec::new(),
            remembered: Vec::new(),
            ids: Vec::new(),
            known: BTreeSet::new(),
            acknowledged_total: BTreeMap::new(),
            expired_total: BTreeMap::new(),
        }
    }

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
    pub(crate) fn verdict(&self, deposit: &Deposit) -> Verdict {
        let mailbox = self.mailbox(&deposit.recipient);
        let sought = key(deposit);
        let is_held = mailbox.iter().any(|held| key(&held.deposit) == sought);
        if is_held || self.remembered.iter().any(|(_, known)| *known == sought) {
            return Verdict::Duplicate;
        }
        let bytes: u64 = mailbox.iter().map(|held| held.deposit.bytes()).sum();
        let full = mailbox.len() as u64 >= self.limits.envelopes_max
            || bytes + deposit.bytes() > self.limits.bytes_max;
        if full { Verdict::MailboxFull } else { Verdict::Stored }
    }

    /// It was stored under `id`; an `Err` if that id must not have been given out.
    pub(crate) fn store(&mut self, id: EntryId, deposit: Deposit) -> Result<(), String> {
        let earlier = self.ids.iter().filter(|(recipient, ..)| *recipient == deposit.recipient);
        if let Some(last) = earlier.map(|(_, earlier, _)| *earlier).max().filter(|last| id <= *last)
        {
            return Err(format!("ids do not ascend: {id:?} after {last:?}"));
        }
        self.ids.push((deposit.recipient.clone(), id, deposit.content_hash));
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
        for held in self.mailbox(recipient) {
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

    /// Removes what is past its time. No two deposits are of the same time, so that "oldest first" has one answer.
    pub(crate) fn expire(&mut self, before: Timestamp, batch_max: usize) -> Expired {
        let mut due: Vec<_> =
            self.held.iter().filter(|held| held.deposit.deposited_at < before).cloned().collect();
        due.sort_by_key(|held| held.deposit.deposited_at);
        due.truncate(batch_max);
        self.held.retain(|held| !due.contains(held));
        for held in &due {
            *self.expired_total.entry(held.deposit.recipient.clone()).or_default() += 1;
        }
        let (mut old, mut young): (Vec<_>, Vec<_>) =
            self.remembered.drain(..).partition(|(at, _)| *at < before);
        old.sort();
        young.extend(old.split_off(batch_max.min(old.len())));
        self.remembered = young;
        Expired { envelopes: due.len() as u64, remembered: old.len() as u64 }
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
            expired_total: total(&self.expired_total),
        }
    }

    fn mailbox(&self, recipient: &ServerName) -> Vec<&StoredEnvelope> {
        self.held.iter().filter(|held| held.deposit.recipient == *recipient).collect()
    }
}
