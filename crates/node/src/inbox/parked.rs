//! What the operator does with mail that is not delivered: looks at it, has it tried again, drops it.

use std::fmt;
use std::str::FromStr;

use restante_relay_api::Content;
use restante_sqlite::StoreError;

use super::Inbox;
use super::load::{Class, Weight};
use super::mail::Standing;
use super::verification::age;
use crate::store::backlog::parked::{self as event_rows, ParkedRow};
use crate::store::inbox::parked::{self as rows, Parked, ParkedMail};

/// Envelopes that are read at once when all are tried again.
const PAGE: u32 = 100;

/// What tells something parked from the rest; written `mail-17` or `event-17`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParkedId {
    /// A whole envelope.
    Mail(i64),
    /// A single event.
    Event(i64),
}

/// What became of the wish to try something again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Retried {
    /// It waits for delivery.
    Waits,
    /// Its proof is judged again.
    IsJudged,
    /// It can't be tried; why.
    Refused(String),
    /// There is no such thing.
    Unknown,
}

/// What became of the wish to try everything again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RetriedAll {
    /// Envelopes that are tried.
    pub(crate) retried: u64,
    /// Envelopes that can't be.
    pub(crate) refused: u64,
}

impl Inbox {
    /// The oldest `limit` envelopes that are parked or found forged, and then single events.
    pub(crate) async fn parked(&self, limit: u32) -> Result<Vec<Parked>, StoreError> {
        let mut parked = rows::parked(self.database(), 0, limit).await?;
        let left = limit.saturating_sub(u32::try_from(parked.len()).unwrap_or(limit));
        let events = event_rows::parked(self.database(), None, left).await?;
        parked.extend(events.into_iter().map(|event| listed(event).listed));
        Ok(parked)
    }

    /// One of them, with its content.
    pub(crate) async fn parked_one(&self, id: ParkedId) -> Result<Option<ParkedMail>, StoreError> {
        match id {
            ParkedId::Mail(id) => rows::parked_one(self.database(), id).await,
            ParkedId::Event(id) => {
                let event = event_rows::parked(self.database(), Some(id), 1).await?;
                Ok(event.into_iter().next().map(listed))
            }
        }
    }

    /// Tries one of them again: delivers what was parked, judges anew what was found forged.
    pub(crate) async fn retry_parked(&self, id: ParkedId) -> Result<Retried, StoreError> {
        let id = match id {
            ParkedId::Mail(id) => id,
            ParkedId::Event(id) => {
                let count = self.detached(move |inbox| inbox.unpark(Some(id))).await?;
                return Ok(if count > 0 { Retried::Waits } else { Retried::Unknown });
            }
        };
        let Some(mail) = rows::parked_one(self.database(), id).await? else {
            return Ok(Retried::Unknown);
        };
        if mail.listed.state == "forged" {
            return self.detached(|inbox| inbox.judge_forged(mail.listed)).await;
        }
        if let Some(reason) = self.undeliverable(&mail) {
            return Ok(Retried::Refused(reason));
        }
        self.detached(|inbox| inbox.deliver_parked(mail.listed)).await
    }

    /// Tries all of them again that were there at the beginning.
    pub(crate) async fn retry_all_parked(&self) -> Result<RetriedAll, StoreError> {
        let events = self.detached(|inbox| inbox.unpark(None)).await?;
        let (mut all, mut after) = (RetriedAll { retried: events, refused: 0 }, 0);
        // What is parked again meanwhile is left alone.
        let last = rows::last_parked(self.database()).await?;
        while after < last {
            let page = rows::parked(self.database(), after, PAGE).await?;
            let Some(end) = page.last() else { break };
            after = end.id;
            for parked in page.iter().filter(|parked| parked.id <= last) {
                match self.retry_parked(ParkedId::Mail(parked.id)).await? {
                    Retried::Waits | Retried::IsJudged => all.retried += 1,
                    Retried::Refused(_) => all.refused += 1,
                    Retried::Unknown => {}
                }
            }
        }
        Ok(all)
    }

    /// Drops one of them for good; whether it was there.
    pub(crate) async fn drop_parked(&self, id: ParkedId) -> Result<bool, StoreError> {
        let id = match id {
            ParkedId::Mail(id) => id,
            ParkedId::Event(id) => return self.drop_event(id).await,
        };
        self.detached(|inbox| async move {
            let Some(dropped) = rows::drop_parked(inbox.database(), id).await? else {
                return Ok(false);
            };
            tracing::info!(
                origin = %dropped.origin, txn_id = dropped.txn_id, reason = dropped.reason,
                "parked mail was dropped by the operator's word"
            );
            if let Some(class) = class(&dropped) {
                let weight = Weight::of(dropped.bytes);
                inbox.state().load.release(&dropped.origin, class, weight);
            }
            Ok(true)
        })
        .await
    }

    async fn drop_event(&self, id: i64) -> Result<bool, StoreError> {
        self.detached(move |inbox| async move {
            let dropped = event_rows::drop_parked(inbox.database(), id).await?;
            if let Some(share) = &dropped {
                tracing::info!(origin = %share.origin, id, "a parked event was dropped by the operator's word");
                inbox.state().give_back(share);
            }
            Ok(dropped.is_some())
        })
        .await
    }

    /// Lets parked events wait in their rooms' backlogs again: this one, or all; how many.
    async fn unpark(self, id: Option<i64>) -> Result<u64, StoreError> {
        let rooms = event_rows::unpark(self.database(), id, self.now()).await?;
        let now = self.elapsed();
        let mut state = self.state();
        rooms.iter().for_each(|room_id| state.backlog.added(room_id, now));
        drop(state);
        self.shared.backlog_due.notify_one();
        Ok(rooms.len() as u64)
    }

    /// Runs to its end even if the operator stops waiting, so that the rows and what is known of them agree.
    async fn detached<T: Send + 'static, F>(
        &self,
        work: impl FnOnce(Self) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        tokio::spawn(work(self.clone())).await.map_err(|_| StoreError::Panicked)?
    }

    /// Why parked mail can't be delivered, whatever the homeserver says.
    fn undeliverable(&self, mail: &ParkedMail) -> Option<String> {
        if mail.proof.is_none() {
            return Some("its events were delivered on their own, and its EDUs can't be without its origin's proof".to_owned());
        }
        // A clock that was wrong when it arrived may be right by this time.
        let content = Content::parse(mail.content.clone()).ok()?;
        match age(&content, self.now()) {
            Standing::Parked(reason) => Some(reason),
            _ => None,
        }
    }

    async fn deliver_parked(self, mail: Parked) -> Result<Retried, StoreError> {
        if !rows::revive(self.database(), mail.id, ("parked", "waiting")).await? {
            return Ok(Retried::Unknown);
        }
        self.state().load.waits(&mail.origin, 1);
        self.wake(&mail.origin);
        Ok(Retried::Waits)
    }

    async fn judge_forged(self, mail: Parked) -> Result<Retried, StoreError> {
        let weight = Weight::of(mail.bytes);
        if self.state().load.admit(&mail.origin, Class::Unproven, weight).is_err() {
            return Ok(Retried::Refused("the inbox is full of mail without proven origin".into()));
        }
        match rows::revive(self.database(), mail.id, ("forged", "unverified")).await {
            Ok(true) => {
                self.judge_soon(&mail.origin);
                Ok(Retried::IsJudged)
            }
            other => {
                self.state().load.release(&mail.origin, Class::Unproven, weight);
                other.map(|_| Retried::Unknown)
            }
        }
    }
}

/// An event as it is listed beside envelopes.
fn listed(event: ParkedRow) -> ParkedMail {
    let (room_id, event_id) = event.event;
    let listed = Parked {
        id: event.id,
        origin: event.origin,
        txn_id: event_id,
        seq: None,
        state: "parked".to_owned(),
        reason: Some(event.reason),
        source: format!("room {room_id}"),
        room_id: Some(room_id),
        arrived_at: event.arrived_at,
        bytes: event.bytes,
        has_proof: false,
    };
    ParkedMail { listed, content: event.pdu, proof: None }
}

impl From<&Parked> for ParkedId {
    fn from(parked: &Parked) -> Self {
        match parked.room_id {
            Some(_) => Self::Event(parked.id),
            None => Self::Mail(parked.id),
        }
    }
}

/// The share of the inbox that it takes.
fn class(parked: &Parked) -> Option<Class> {
    match (parked.state.as_str(), parked.has_proof) {
        ("forged", _) => None,
        (_, true) => Some(Class::Proven),
        (_, false) => Some(Class::Unproven),
    }
}

/// Not the name of anything parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an id as `restante node parked list` shows them, such as mail-17")]
pub(crate) struct ParkedIdError;

impl FromStr for ParkedId {
    type Err = ParkedIdError;

    fn from_str(text: &str) -> Result<Self, ParkedIdError> {
        let (kind, number) = text.split_once('-').ok_or(ParkedIdError)?;
        let number = number.parse().map_err(|_| ParkedIdError)?;
        match kind {
            "mail" => Ok(Self::Mail(number)),
            "event" => Ok(Self::Event(number)),
            _ => Err(ParkedIdError),
        }
    }
}

impl fmt::Display for ParkedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mail(id) => write!(f, "mail-{id}"),
            Self::Event(id) => write!(f, "event-{id}"),
        }
    }
}
