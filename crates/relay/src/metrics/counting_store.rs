//! A store that counts what goes in and out of the one behind it.

use std::sync::Arc;

use async_trait::async_trait;
use restante_federation_proto::{ServerName, Timestamp};
use restante_mailbox::{
    Acknowledged, Acknowledgement, Collected, Deposit, Deposited, Depth, Due, EntryId, Expired,
    Loss, MailboxStore, MailboxSummary, Page, Quotas, StoreError,
};

use super::Counted;

/// See the module.
pub(crate) struct CountingStore {
    store: Arc<dyn MailboxStore>,
    counted: Counted,
}

impl CountingStore {
    pub(crate) fn around(store: Arc<dyn MailboxStore>, counted: Counted) -> Arc<Self> {
        Arc::new(Self { store, counted })
    }
}

#[async_trait]
impl MailboxStore for CountingStore {
    async fn deposit(&self, deposit: Deposit, quotas: Quotas) -> Result<Deposited, StoreError> {
        let deposited = self.store.deposit(deposit, quotas).await;
        self.counted.deposit(deposited.as_ref().ok().copied());
        deposited
    }

    async fn collect(
        &self,
        recipient: &ServerName,
        after: Option<EntryId>,
        page: Page,
    ) -> Result<Collected, StoreError> {
        let collected = self.store.collect(recipient, after, page).await?;
        self.counted.collected.inc_by(collected.envelopes.len() as u64);
        self.counted.quarantined.inc_by(collected.quarantined.len() as u64);
        Ok(collected)
    }

    async fn acknowledge(
        &self,
        recipient: &ServerName,
        acknowledgements: &[Acknowledgement],
    ) -> Result<Acknowledged, StoreError> {
        let acknowledged = self.store.acknowledge(recipient, acknowledgements).await?;
        self.counted.acknowledged.inc_by(acknowledged.removed);
        Ok(acknowledged)
    }

    async fn depth(&self, recipient: &ServerName) -> Result<Depth, StoreError> {
        self.store.depth(recipient).await
    }

    async fn expire(&self, due: Due, batch_max: usize) -> Result<Expired, StoreError> {
        let expired = self.store.expire(due, batch_max).await?;
        self.counted.expired.inc_by(expired.envelopes - expired.of_the_moment);
        self.counted.expired_of_the_moment.inc_by(expired.of_the_moment);
        Ok(expired)
    }

    async fn losses(&self, recipient: &ServerName) -> Result<Vec<Loss>, StoreError> {
        self.store.losses(recipient).await
    }

    async fn standing(&self, recipient: &ServerName) -> Result<(Depth, Vec<Loss>), StoreError> {
        self.store.standing(recipient).await
    }

    async fn forget_losses(
        &self,
        recipient: &ServerName,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        self.store.forget_losses(recipient, until).await
    }

    async fn list(
        &self,
        after: Option<&ServerName>,
        limit: usize,
    ) -> Result<Vec<MailboxSummary>, StoreError> {
        self.store.list(after, limit).await
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.store.health().await
    }
}
