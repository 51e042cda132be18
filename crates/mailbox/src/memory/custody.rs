//! The operator's hand on what is in memory.

use std::path::Path;

use async_trait::async_trait;
use restante_federation_proto::{ServerName, Timestamp};

use super::mailbox::Mailbox;
use super::{MemoryStore, State};
use crate::{
    Backup, BackupError, Collected, Custody, Deposit, EntryId, EnvelopeLine, Found, Hold, Imported,
    LossKind, MailboxSummary, Page, Resealed, Selection, Share, StoreError, Totals, Upkeep,
};

impl MemoryStore {
    fn set(&self, recipient: &ServerName, hold: Hold) -> Found {
        match self.state().mailboxes.get_mut(recipient) {
            Some(mailbox) => {
                mailbox.hold = hold;
                Found::Mailbox
            }
            None => Found::NoMailbox,
        }
    }

    fn of<T: Default>(&self, recipient: &ServerName, look: impl FnOnce(&Mailbox) -> T) -> T {
        self.state().mailboxes.get(recipient).map(look).unwrap_or_default()
    }
}

impl State {
    pub(super) fn drop_mail(
        &mut self,
        recipient: &ServerName,
        selection: &Selection,
        now: Timestamp,
    ) -> u64 {
        let chosen = |id: EntryId, deposit: &Deposit| match selection {
            Selection::All => true,
            Selection::Envelope(one) => *one == id,
            Selection::Origin(origin) => *origin == deposit.origin,
        };
        let ids = self.mailboxes.get(recipient).map(|mailbox| mailbox.ids(chosen));
        let lost = ids
            .into_iter()
            .flatten()
            .filter_map(|id| self.lose(recipient, id, LossKind::Dropped, now));
        lost.count() as u64
    }
}

#[async_trait]
impl Custody for MemoryStore {
    async fn hold(&self, recipient: &ServerName) -> Result<Found, StoreError> {
        Ok(self.set(recipient, Hold::Held))
    }

    async fn release(&self, recipient: &ServerName) -> Result<Found, StoreError> {
        Ok(self.set(recipient, Hold::Released))
    }

    async fn drop_mail(
        &self,
        recipient: &ServerName,
        selection: Selection,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        Ok(self.state().drop_mail(recipient, &selection, now))
    }

    async fn envelopes(
        &self,
        recipient: &ServerName,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<EnvelopeLine>, StoreError> {
        Ok(self.of(recipient, |mailbox| mailbox.lines(after, limit)))
    }

    async fn shares(
        &self,
        recipient: &ServerName,
        after: Option<&ServerName>,
        limit: usize,
    ) -> Result<Vec<Share>, StoreError> {
        Ok(self.of(recipient, |mailbox| mailbox.shares(after, limit)))
    }

    async fn summary(&self, recipient: &ServerName) -> Result<Option<MailboxSummary>, StoreError> {
        Ok(self.state().summary(recipient))
    }

    async fn export(
        &self,
        recipient: &ServerName,
        after: Option<EntryId>,
        page: Page,
    ) -> Result<Collected, StoreError> {
        let envelopes = self.of(recipient, |mailbox| mailbox.page(after, page));
        Ok(Collected { envelopes, quarantined: Vec::new() })
    }

    async fn import(&self, mail: Vec<Deposit>) -> Result<Imported, StoreError> {
        let mut state = self.state();
        let mut imported = Imported::default();
        for deposit in mail {
            if !state.knows(&deposit) && state.store(deposit, self.dice.number()).is_some() {
                imported.imported += 1;
            } else {
                imported.duplicates += 1;
            }
        }
        Ok(imported)
    }
}

#[async_trait]
impl Upkeep for MemoryStore {
    async fn totals(&self) -> Result<Totals, StoreError> {
        let state = self.state();
        Ok(Totals {
            mailboxes: state.mailboxes.len() as u64,
            onward_mailboxes: state.onward_mailboxes(),
            registrations: state.registers.count(),
            envelopes: state.load.envelopes,
            bytes: state.load.bytes,
            ..Totals::default()
        })
    }

    async fn backup(&self, _: &Path) -> Result<Backup, BackupError> {
        Err(BackupError::InMemory)
    }

    async fn reseal(&self, _: usize) -> Result<Resealed, StoreError> {
        Ok(Resealed::default())
    }

    async fn expired_to(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.state().expired_to)
    }

    async fn note_expired_to(&self, time: Timestamp) -> Result<(), StoreError> {
        self.state().expired_to = Some(time);
        Ok(())
    }
}
