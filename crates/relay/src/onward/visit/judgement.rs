//! What becomes of a transaction after its destination answered, or did not.

use std::time::Duration;

use restante_federation::Answer;
use restante_federation_proto::ServerName;
use restante_mailbox::{HandedOn, StoreError, StoredEnvelope};
use tokio::time::Instant;

use super::super::call::{self, Means};
use super::super::rests::Unverified;
use super::super::schedule::Ended;
use super::{Turn, Up, Visit};

/// Transactions of a visit that fail, and none does not, at a destination that is up: then it is left alone for a while.
const FAILED_MAX: usize = 2;

/// A busy destination is left alone for at least this, and at most that.
const BUSY_MIN: Duration = Duration::from_secs(1);
const BUSY_MAX: Duration = Duration::from_secs(3600);

impl Visit<'_> {
    pub(super) async fn judge(
        &mut self,
        origin: &ServerName,
        envelope: &StoredEnvelope,
        answer: &Answer,
    ) -> Result<Turn, StoreError> {
        let now = Instant::now();
        let means = call::means(answer);
        if means == Means::Nothing {
            return Ok(self.in_vain(origin, envelope, &answer.summary()).await);
        }
        self.answered += 1;
        self.up = Up::Yes;
        self.relay.onward.memory().up.answered(&self.destination, now);
        match means {
            Means::Taken => {
                self.delivered(origin, envelope).await?;
                Ok(Turn::Done)
            }
            Means::Busy { retry_after } => {
                self.relay.counted.onward("busy");
                let until = now + retry_after.clamp(BUSY_MIN, BUSY_MAX);
                self.relay.onward.memory().rests.rest(&self.destination, origin, until);
                Ok(Turn::Rests(until))
            }
            Means::Unverified => self.unverified(origin, envelope, answer).await,
            Means::Refused | Means::Nothing => {
                self.refused(envelope, &answer.summary()).await?;
                Ok(Turn::Done)
            }
        }
    }

    async fn delivered(
        &self,
        origin: &ServerName,
        envelope: &StoredEnvelope,
    ) -> Result<(), StoreError> {
        self.relay.onward.memory().rests.took(&self.destination, origin);
        let store = &self.relay.stores.onward;
        let was_there = store.hand_on(&self.destination, envelope.id, HandedOn::Delivered).await?;
        if was_there {
            self.relay.counted.onward("delivered");
        }
        let (destination, id) = (&self.destination, envelope.id.get());
        tracing::info!(mailbox = %destination, %origin, envelope.id = id, "delivered onward");
        Ok(())
    }

    async fn unverified(
        &self,
        origin: &ServerName,
        envelope: &StoredEnvelope,
        answer: &Answer,
    ) -> Result<Turn, StoreError> {
        self.relay.counted.onward("unverified");
        let (backoff, jitter) = (self.relay.rules().onward.backoff, self.relay.dice.fraction());
        let rests = self.relay.onward.memory().rests.unverified(
            &self.destination,
            origin,
            (Instant::now(), backoff, jitter),
        );
        match rests {
            Unverified::Rests(until) => Ok(Turn::Rests(until)),
            // What stands before a homeserver has no last word.
            Unverified::GivenUp if !call::is_of_matrix(answer) => {
                let until = Instant::now() + backoff.max;
                self.relay.onward.memory().rests.rest(&self.destination, origin, until);
                Ok(Turn::Rests(until))
            }
            Unverified::GivenUp => {
                self.refused(envelope, &answer.summary()).await?;
                Ok(Turn::Done)
            }
        }
    }

    /// It stays where it is, and its recipient may collect it.
    pub(super) async fn refused(
        &self,
        envelope: &StoredEnvelope,
        reason: &str,
    ) -> Result<(), StoreError> {
        self.relay.stores.onward.refuse_onward(&self.destination, envelope.id).await?;
        self.relay.counted.onward("refused");
        let (origin, id) = (&envelope.deposit.origin, envelope.id.get());
        tracing::warn!(mailbox = %self.destination, %origin, envelope.id = id, reason, "its recipient refused it; it waits to be collected");
        Ok(())
    }

    /// A transaction failed. If the destination is up all the same, it may be the transaction: then its origin's mail rests, and that of others
    /// goes on.
    pub(super) async fn in_vain(
        &mut self,
        origin: &ServerName,
        envelope: &StoredEnvelope,
        reason: &str,
    ) -> Turn {
        if self.up == Up::Lately {
            self.relay.onward.memory().up.failed(&self.destination);
            self.up = Up::Unknown;
            if let Some(turn) = self.look(envelope).await {
                return turn;
            }
        }
        drop(self.unreachable(envelope, reason));
        self.failed += 1;
        let (backoff, jitter) = (self.relay.rules().onward.backoff, self.relay.dice.fraction());
        let mut memory = self.relay.onward.memory();
        let now = Instant::now();
        let until = memory.rests.failed(&self.destination, origin, (now, backoff, jitter));
        if self.answered == 0 && self.failed >= FAILED_MAX {
            memory.up.failed(&self.destination);
            return Turn::Ends(Ended::Unreachable(self.served.clone()));
        }
        Turn::Rests(until)
    }
}
