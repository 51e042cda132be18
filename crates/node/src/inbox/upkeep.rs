//! Keeps the inbox in order: judges unverified mail again, forgets what no relay may hold any longer.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use restante_federation_proto::ServerName;
use restante_relay_api::limits::TIME_TO_LIVE;
use restante_sqlite::StoreError;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::Inbox;
use super::mail::Standing;
use super::verification::{Incoming, judge};
use crate::store::backlog;
use crate::store::inbox::{self as rows, Unverified};
use crate::store::seen;

/// How often unverified mail is judged again though nothing of its origin arrived. Short, because what was missing may
/// be the homeserver that starts after its node; the key ring's own pauses bound what is asked of others.
const ROUND: Duration = Duration::from_secs(15);

/// Rounds between two looks for memories that are old enough to go.
const ROUNDS_BETWEEN_PRUNES: u64 = 20;

/// Why events of a backlog are parked at last.
const GAP_NEVER_CLOSED: &str =
    "earlier events of the room never came, for as long as relays keep mail";

/// Envelopes that are read at once.
const PAGE: u32 = 20;

/// Origins whose unverified mail is judged at once in a round: names that strangers made up, and whose servers hang, do
/// not stop the others.
const ORIGINS_AT_ONCE: usize = 8;

pub(super) async fn run(inbox: &Inbox, shutdown: &CancellationToken) {
    let work = async { tokio::join!(rounds(inbox), judge_wanted(inbox)) };
    tokio::select! {
        () = shutdown.cancelled() => {}
        _ = work => {}
    }
}

async fn rounds(inbox: &Inbox) {
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for round_number in 0_u64.. {
        rounds.tick().await;
        if round_number.is_multiple_of(ROUNDS_BETWEEN_PRUNES) {
            inbox.prune().await;
            inbox.expire_backlog().await;
        }
        let origins = inbox.state().load.unproven();
        inbox.judge_again(origins).await;
    }
}

/// Judges the mail of those whose key is believed or trusted since. Apart from the rounds, which may take long.
async fn judge_wanted(inbox: &Inbox) {
    loop {
        inbox.shared.judging_due.notified().await;
        let origins = std::mem::take(&mut inbox.state().to_judge);
        inbox.judge_again(origins.into_iter().collect()).await;
    }
}

impl Inbox {
    async fn judge_again(&self, origins: Vec<ServerName>) {
        let judging =
            stream::iter(origins).for_each_concurrent(ORIGINS_AT_ONCE, |origin| async move {
                if let Err(error) = self.judge_origin(&origin).await {
                    tracing::error!(%origin, %error, "unverified mail can't be judged now");
                }
            });
        judging.await;
    }

    /// Judges the unverified mail of one origin, page by page, for as long as all of a page becomes verified: the
    /// others wait for the same keys, though one envelope may name a room that proves them and another none.
    async fn judge_origin(&self, origin: &ServerName) -> Result<(), StoreError> {
        let mut after = 0;
        loop {
            let page = rows::unverified(self.database(), origin.clone(), after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.id;
            let mut is_any_unverified = false;
            for unverified in page {
                is_any_unverified |= !self.judge_one(unverified).await?;
            }
            if is_any_unverified {
                return Ok(());
            }
        }
    }

    async fn judge_one(&self, unverified: Unverified) -> Result<bool, StoreError> {
        let Unverified { id, mail: held } = unverified;
        let incoming = Incoming {
            origin: held.key.origin.clone(),
            txn_id: Some(held.key.txn_id.clone()),
            content: held.content.clone(),
            extras: held.extras.clone(),
            source: held.source.clone(),
        };
        let judged = judge(self.site(), incoming).await;
        if matches!(judged.standing, Standing::Unverified(_)) {
            return Ok(false);
        }
        if !self.admit(&judged) {
            return Ok(false);
        }
        let stored = rows::judge(self.database(), id, judged.clone(), self.now()).await;
        let mut state = self.state();
        match stored {
            Ok(Some(is_first)) => {
                state.release(&held);
                if is_first { state.stored(&judged) } else { state.release(&judged) }
            }
            Ok(None) => state.release(&judged),
            Err(error) => {
                state.release(&judged);
                return Err(error);
            }
        }
        drop(state);
        self.shared.mail_due.notify_one();
        Ok(true)
    }

    /// Parks what has waited in a room's backlog for as long as any relay may hold what it lacks.
    async fn expire_backlog(&self) {
        let before = self.now().before(TIME_TO_LIVE);
        match backlog::expire(self.database(), before, GAP_NEVER_CLOSED).await {
            Ok(0) => {}
            Ok(count) => tracing::warn!(count, "events are parked: {GAP_NEVER_CLOSED}"),
            Err(error) => tracing::error!(%error, "a backlog that is too old can't be parked now"),
        }
    }

    async fn prune(&self) {
        loop {
            match seen::prune(self.database(), self.now()).await {
                Ok(true) => tokio::task::yield_now().await,
                Ok(false) => return,
                Err(error) => {
                    tracing::error!(%error, "old memories of mail can't be pruned now");
                    return;
                }
            }
        }
    }
}
