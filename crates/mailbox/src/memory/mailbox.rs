//! One mailbox in memory.

use std::collections::BTreeMap;
use std::ops::Bound;

use restante_federation_proto::ServerName;

use crate::{Acknowledgement, Deposit, Depth, EntryId, MailboxSummary, Page, StoredEnvelope};

#[derive(Debug)]
pub(super) struct Mailbox {
    envelopes: BTreeMap<EntryId, Deposit>,
    bytes: u64,
    /// The highest id given out; at first the one before the first.
    last: EntryId,
    acknowledged_total: u64,
    expired_total: u64,
}

impl Mailbox {
    pub(super) fn new(before_first: EntryId) -> Self {
        Self {
            envelopes: BTreeMap::new(),
            bytes: 0,
            last: before_first,
            acknowledged_total: 0,
            expired_total: 0,
        }
    }

    /// Appends, unless no id is left.
    pub(super) fn push(&mut self, deposit: Deposit) -> Option<EntryId> {
        let id = self.last.next()?;
        self.last = id;
        self.bytes += deposit.bytes();
        self.envelopes.insert(id, deposit);
        Some(id)
    }

    pub(super) fn page(&self, after: Option<EntryId>, page: Page) -> Vec<StoredEnvelope> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut bytes = 0;
        let mut envelopes = Vec::new();
        for (id, deposit) in self.envelopes.range((start, Bound::Unbounded)) {
            bytes += deposit.bytes();
            let too_big = bytes > page.bytes_max as u64 && !envelopes.is_empty();
            if envelopes.len() >= page.envelopes_max || too_big {
                break;
            }
            envelopes.push(StoredEnvelope { id: *id, deposit: deposit.clone() });
        }
        envelopes
    }

    /// Removes the envelope if it is there with the content that its owner has.
    pub(super) fn acknowledge(&mut self, acknowledgement: Acknowledgement) -> Option<Deposit> {
        let held = self.envelopes.get(&acknowledgement.id)?;
        if acknowledgement.content_hash.is_some_and(|hash| hash != held.content_hash) {
            return None;
        }
        self.acknowledged_total += 1;
        self.remove(acknowledgement.id)
    }

    pub(super) fn expire(&mut self, id: EntryId) -> Option<Deposit> {
        let deposit = self.remove(id)?;
        self.expired_total += 1;
        Some(deposit)
    }

    pub(super) fn depth(&self) -> Depth {
        Depth {
            count: self.envelopes.len() as u64,
            bytes: self.bytes,
            oldest_at: self.envelopes.first_key_value().map(|(_, deposit)| deposit.deposited_at),
        }
    }

    pub(super) fn summary(&self, recipient: &ServerName) -> MailboxSummary {
        MailboxSummary {
            recipient: recipient.clone(),
            depth: self.depth(),
            quarantined: 0,
            acknowledged_total: self.acknowledged_total,
            expired_total: self.expired_total,
        }
    }

    fn remove(&mut self, id: EntryId) -> Option<Deposit> {
        let deposit = self.envelopes.remove(&id)?;
        self.bytes -= deposit.bytes();
        Some(deposit)
    }
}
