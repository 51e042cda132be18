//! Mail to try a store with.

use std::time::Duration;

use bytes::Bytes;
use restante_federation_proto::{ServerName, Timestamp};
use sha2::{Digest, Sha256};

use super::Store;
use crate::{
    Acknowledgement, ContentHash, Deposit, Deposited, Due, EntryId, Expired, Loss, MailboxLimits,
    MailboxSummary, Onward, Page, Quotas, StoredEnvelope,
};

/// Room for all that the checks leave.
pub(super) const ROOMY: Quotas = quotas(10_000, 64 << 20);
pub(super) const THREE_ENVELOPES: Quotas = quotas(3, 64 << 20);
pub(super) const HUNDRED_BYTES: Quotas = quotas(10_000, 100);

/// Of mailboxes alone.
pub(super) const fn quotas(envelopes_max: u64, bytes_max: u64) -> Quotas {
    Quotas::of_mailboxes(MailboxLimits { envelopes_max, bytes_max })
}

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
        deposited_at: time(1000),
        expires_at: time(1000).after(TIME_TO_LIVE),
        onward: Onward::No,
    }
}

pub(super) fn mail_at(recipient: &str, txn_id: &str, millis: u64) -> Deposit {
    let deposited_at = time(millis);
    let expires_at = deposited_at.after(TIME_TO_LIVE);
    Deposit { deposited_at, expires_at, ..mail(recipient, txn_id) }
}

/// How long mail is kept.
pub(super) const TIME_TO_LIVE: Duration = Duration::from_secs(100);

pub(super) fn time(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
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

/// Leaves mail where there is room for all.
pub(super) async fn deposit(store: &Store, deposit: Deposit) -> Deposited {
    store.deposit(deposit, ROOMY).await.unwrap()
}

pub(super) async fn losses(store: &Store, recipient: &str) -> Vec<Loss> {
    store.losses(&server(recipient)).await.unwrap()
}

/// Leaves mail that must be taken.
pub(super) async fn leave(store: &Store, mail: Deposit) -> EntryId {
    match deposit(store, mail).await {
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

/// Expires what was deposited before `millis` and kept for [`TIME_TO_LIVE`].
pub(super) async fn expire_deposited_before(store: &Store, millis: u64) -> Expired {
    let now = time(millis).after(TIME_TO_LIVE);
    store.expire(Due { now, remembered_from: time(millis) }, 10).await.unwrap()
}
