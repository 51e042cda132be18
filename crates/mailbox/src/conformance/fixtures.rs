//! Mail to try a store with.

use bytes::Bytes;
use restante_federation_proto::{ServerName, Timestamp};
use sha2::{Digest, Sha256};

use super::Store;
use crate::{
    Acknowledgement, ContentHash, Deposit, Deposited, EntryId, MailboxSummary, Page, StoredEnvelope,
};

pub(super) const EVERYTHING: Page = Page { envelopes_max: 10_000, bytes_max: usize::MAX };

pub(super) fn server(name: &str) -> ServerName {
    name.parse().unwrap()
}

/// From `a.example`, at the time 1000.
pub(super) fn mail(recipient: &str, txn_id: &str) -> Deposit {
    let content = format!(r#"{{"origin":"a.example","pdus":[],"txn":"{txn_id}"}}"#);
    Deposit {
        recipient: server(recipient),
        origin: server("a.example"),
        txn_id: txn_id.to_owned(),
        content_hash: hash(content.as_bytes()),
        content: content.into(),
        members: Bytes::from_static(br#"{"org.restante.proof":{}}"#),
        deposited_at: Timestamp::from_millis(1000),
    }
}

pub(super) fn mail_at(recipient: &str, txn_id: &str, millis: u64) -> Deposit {
    Deposit { deposited_at: Timestamp::from_millis(millis), ..mail(recipient, txn_id) }
}

/// Mail of exactly `bytes`.
pub(super) fn mail_of(recipient: &str, txn_id: &str, bytes: usize) -> Deposit {
    let content = Bytes::from(vec![b'x'; bytes]);
    Deposit {
        content_hash: hash(&content),
        content,
        members: Bytes::new(),
        ..mail(recipient, txn_id)
    }
}

pub(super) fn hash(content: &[u8]) -> ContentHash {
    ContentHash(Sha256::digest(content).into())
}

/// Leaves mail that must be taken.
pub(super) async fn leave(store: &Store, deposit: Deposit) -> EntryId {
    match store.deposit(deposit).await.unwrap() {
        Deposited::Stored(id) => id,
        other => panic!("not stored: {other:?}"),
    }
}

pub(super) async fn leave_all(store: &Store, deposits: &[Deposit]) -> Vec<EntryId> {
    let mut ids = Vec::new();
    for deposit in deposits {
        ids.push(leave(store, deposit.clone()).await);
    }
    ids
}

/// All that a mailbox holds; nothing of it may be damaged.
pub(super) async fn held(store: &Store, recipient: &str) -> Vec<StoredEnvelope> {
    page(store, recipient, None, EVERYTHING).await
}

pub(super) async fn held_ids(store: &Store, recipient: &str) -> Vec<EntryId> {
    held(store, recipient).await.iter().map(|envelope| envelope.id).collect()
}

pub(super) async fn page(
    store: &Store,
    recipient: &str,
    after: Option<EntryId>,
    page: Page,
) -> Vec<StoredEnvelope> {
    let collected = store.collect(&server(recipient), after, page).await.unwrap();
    assert_eq!(collected.quarantined, []);
    collected.envelopes
}

/// Acknowledges by id alone, and tells how many left.
pub(super) async fn acknowledge(store: &Store, recipient: &str, ids: &[EntryId]) -> u64 {
    let acknowledgements: Vec<_> =
        ids.iter().map(|id| Acknowledgement { id: *id, content_hash: None }).collect();
    store.acknowledge(&server(recipient), &acknowledgements).await.unwrap().removed
}

pub(super) async fn summary(store: &Store, recipient: &str) -> MailboxSummary {
    let mailboxes = store.list(None, 1000).await.unwrap();
    mailboxes.into_iter().find(|mailbox| mailbox.recipient.as_str() == recipient).unwrap()
}
