//! Calls of a store, their answers, and how a story tells them.

use std::fmt;

use super::*;
use crate::StoredEnvelope;
use crate::conformance::model::Model;

/// One call of the store.
#[derive(Debug, Clone)]
pub(super) enum Call {
    Deposit(Deposit),
    Collect(ServerName, Option<EntryId>, Page),
    Acknowledge(ServerName, Vec<Acknowledgement>),
    Expire(Due, usize),
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
    Health,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deposit(deposited) => write!(f, "{deposited:?}"),
            Self::Collect(collected) => write!(f, "{}", Brief(&collected.envelopes)),
            Self::Acknowledge(acknowledged) => write!(f, "{acknowledged:?}"),
            Self::Expire(expired) => write!(f, "{expired:?}"),
            Self::Health => f.write_str("healthy"),
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
            Self::Expire(before, batch_max) => drop(model.expire(before, batch_max)),
            Self::Deposit(_) | Self::Collect(..) | Self::Health => {}
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
            Self::Expire(before, batch_max) => {
                Answer::Expire(store.expire(*before, *batch_max).await?)
            }
            Self::Health => {
                store.health().await?;
                Answer::Health
            }
        })
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
