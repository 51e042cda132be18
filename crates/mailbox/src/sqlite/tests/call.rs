//! Calls of a store, their answers, and how a story tells them.

use std::fmt;

use super::*;
use crate::conformance::model::Model;
use crate::{
    Accounts as _, DuplicateKey, Full, HandedOn, Hold, MailName, OnwardMail as _, StoredEnvelope,
    Withdrawal,
};

/// One call of the store.
#[derive(Debug, Clone)]
pub(super) enum Call {
    Deposit(Deposit),
    Collect(ServerName, Option<EntryId>, Page),
    Acknowledge(ServerName, Vec<Acknowledgement>),
    /// Mail that its owner has from elsewhere.
    Have(ServerName, Vec<MailName>),
    Expire(Due, usize),
    /// Mail for which there is no room.
    Refused(Deposit),
    ForgetLosses(ServerName),
    Set(ServerName, Hold),
    Drop(ServerName, Selection),
    Register(ServerName),
    /// Keeping the mail.
    Leave(ServerName),
    HandOn(ServerName, EntryId, HandedOn),
    RefuseOnward(ServerName, EntryId),
    /// By its origin.
    Withdraw(ServerName, Withdrawal),
    Reseal,
    Health,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deposit(mail) => {
                let Deposit { recipient, txn_id, content, .. } = mail;
                write!(f, "deposit {txn_id} for {recipient}, {} bytes", content.len())
            }
            Self::Collect(recipient, ..) => write!(f, "collect {recipient}"),
            Self::Acknowledge(recipient, named) => {
                let ids: Vec<_> = named.iter().map(|named| named.id.get()).collect();
                write!(f, "acknowledge {recipient} {ids:?}")
            }
            other => write!(f, "{other:?}"),
        }
    }
}

/// What it answered.
pub(super) enum Answer {
    Deposit(Deposited),
    Collect(Collected),
    Acknowledge(Acknowledged),
    Expire(Expired),
    Drop(u64),
    /// What tells nothing.
    Done,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deposit(deposited) => write!(f, "{deposited:?}"),
            Self::Collect(collected) => write!(f, "{}", Brief(&collected.envelopes)),
            Self::Acknowledge(acknowledged) => write!(f, "{acknowledged:?}"),
            Self::Expire(expired) => write!(f, "{expired:?}"),
            Self::Drop(dropped) => write!(f, "{dropped} dropped"),
            Self::Done => f.write_str("done"),
        }
    }
}

/// Envelopes by txn id and number.
pub(super) struct Brief<'a>(pub(super) &'a [StoredEnvelope]);

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brief = |held: &StoredEnvelope| format!("{} as {}", held.deposit.txn_id, held.id.get());
        write!(f, "{:?}", self.0.iter().map(brief).collect::<Vec<_>>())
    }
}

impl Call {
    /// What it does, if it is no deposit.
    pub(super) fn play(self, model: &mut Model) {
        match self {
            Self::Acknowledge(recipient, named) => drop(model.acknowledge(&recipient, &named)),
            Self::Have(recipient, copies) => {
                model.acknowledge_copies(&recipient, &copies);
            }
            Self::Expire(before, batch_max) => drop(model.expire(before, batch_max)),
            Self::Refused(deposit) => model.turn_away(&deposit, Full::Mailbox),
            Self::ForgetLosses(recipient) => model.forget_losses(&recipient),
            Self::Set(recipient, hold) => drop(model.set(&recipient, hold)),
            Self::Drop(recipient, selection) => drop(model.drop_mail(&recipient, &selection)),
            Self::Register(recipient) => model.register(&recipient),
            Self::Leave(recipient) => model.unregister(&recipient),
            Self::HandOn(recipient, id, way) => drop(model.hand_on(&recipient, id, way)),
            Self::RefuseOnward(recipient, id) => model.refuse_onward(&recipient, id),
            Self::Withdraw(origin, withdrawal) => drop(model.withdraw(&origin, &withdrawal)),
            Self::Deposit(_) | Self::Collect(..) | Self::Reseal | Self::Health => {}
        }
    }

    pub(super) async fn on(&self, store: &SqliteStore) -> Result<Answer, StoreError> {
        Ok(match self {
            Self::Deposit(deposit) => Answer::Deposit(store.deposit(deposit.clone(), ROOMY).await?),
            Self::Collect(recipient, after, page) => {
                Answer::Collect(store.collect(recipient, *after, *page).await?)
            }
            Self::Acknowledge(recipient, named) => {
                Answer::Acknowledge(store.acknowledge(recipient, named).await?)
            }
            Self::Have(recipient, copies) => {
                let keys = copies.iter().map(|name| DuplicateKey::named(recipient, name));
                let (keys, now) = (keys.collect::<Vec<_>>(), Timestamp::EPOCH);
                Answer::Acknowledge(store.acknowledge_copies(recipient, &keys, now).await?)
            }
            Self::Expire(before, batch_max) => {
                Answer::Expire(store.expire(*before, *batch_max).await?)
            }
            Self::Refused(deposit) => {
                Answer::Deposit(store.deposit(deposit.clone(), NO_ROOM).await?)
            }
            Self::Drop(recipient, selection) => {
                let now = Timestamp::from_millis(1_000_000);
                Answer::Drop(store.drop_mail(recipient, selection.clone(), now).await?)
            }
            command => {
                command.obey(store).await?;
                Answer::Done
            }
        })
    }
}

/// No room in any mailbox.
const NO_ROOM: Quotas = Quotas::of_mailboxes(MailboxLimits { envelopes_max: 0, bytes_max: 0 });

/// Envelopes of a step of sealing anew: few, so that a round takes several.
const RESEAL_BATCH: usize = 3;

impl Call {
    async fn obey(&self, store: &SqliteStore) -> Result<(), StoreError> {
        match self {
            Self::ForgetLosses(recipient) => {
                store.forget_losses(recipient, Timestamp::from_millis(u64::MAX)).await
            }
            Self::Set(recipient, Hold::Held) => store.hold(recipient).await.map(drop),
            Self::Set(recipient, Hold::Released) => store.release(recipient).await.map(drop),
            Self::Register(recipient) => {
                let registration = Registration {
                    recipient: recipient.clone(),
                    record: Bytes::from_static(b"{}"),
                    senders: Senders::default(),
                    time_to_live: None,
                    registered_at: Timestamp::EPOCH,
                    admitted_by: AdmittedBy::Nobody,
                    outgoing: Outgoing::No,
                };
                store.register(registration, None, Timestamp::EPOCH).await.map(drop)
            }
            Self::Leave(recipient) => {
                store.leave(recipient, LeftMail::Keep, Timestamp::EPOCH).await.map(drop)
            }
            Self::HandOn(recipient, id, way) => store.hand_on(recipient, *id, *way).await.map(drop),
            Self::RefuseOnward(recipient, id) => store.refuse_onward(recipient, *id).await,
            Self::Withdraw(origin, withdrawal) => {
                store.withdraw(origin, std::slice::from_ref(withdrawal)).await.map(drop)
            }
            Self::Reseal => store.reseal(RESEAL_BATCH).await.map(drop),
            _ => store.health().await,
        }
    }
}

/// What `calls` acknowledge.
pub(super) fn named(calls: &[Call]) -> Vec<EntryId> {
    let named = calls.iter().filter_map(|call| match call {
        Call::Acknowledge(_, named) => Some(named),
        _ => None,
    });
    named.flatten().map(|named| named.id).collect()
}
