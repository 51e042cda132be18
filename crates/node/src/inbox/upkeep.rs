//! Keeps the inbox in order: judges unverified mail again, forgets what no relay may hold any longer.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use restante_federation_proto::{ClockChange, ServerName, Timestamp, TrustedTime};
use restante_relay_api::limits::TIME_TO_LIVE;
use restante_sqlite::StoreError;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Inbox;
use super::load::{Class, Weight};
use super::mail::Standing;
use super::verification::{Incoming, KEY_WAIT, judge};
use crate::store::backlog::parked as parked_events;
use crate::store::inbox::{self as rows, Stored, Unverified};
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
    inbox.state().judging.clear();
    let work = async { tokio::join!(rounds(inbox), judge_wanted(inbox)) };
    tokio::select! {
        biased;
        () = shutdown.cancelled() => {}
        _ = work => {}
    }
}

async fn rounds(inbox: &Inbox) {
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut trusted = inbox.trusted_time().await;
    for round_number in 0_u64.. {
        rounds.tick().await;
        // Before anything is removed: what came while the clock was wrong is old all at once when it is set right.
        let origins = stream::iter(inbox.unproven_origins(round_number));
        let judging = origins.for_each_concurrent(ORIGINS_AT_ONCE, |origin| async move {
            inbox.judge_again(&origin).await;
        });
        judging.await;
        if round_number.is_multiple_of(ROUNDS_BETWEEN_PRUNES) {
            let now = inbox.now_to_expire(&mut trusted);
            inbox.prune(now).await;
            inbox.expire_backlog().await;
            inbox.expire_unproven(now).await;
            if let Err(error) = inbox.site().stand_in.prune(now).await {
                tracing::error!(%error, "events of capsules that are too old can't be removed now");
            }
        }
    }
}

/// Judges the mail of those whose key is believed or trusted since. Apart from the rounds, which may take long.
async fn judge_wanted(inbox: &Inbox) {
    loop {
        inbox.shared.judging_due.notified().await;
        let origins = {
            let mut state = inbox.state();
            let origins = std::mem::take(&mut state.to_judge);
            state.judging.extend(origins.iter().cloned());
            origins
        };
        let judging =
            stream::iter(origins).for_each_concurrent(ORIGINS_AT_ONCE, |origin| async move {
                inbox.judge_again(&origin).await;
                // Here alone: a round that judges the same origin meanwhile knows less.
                inbox.state().judging.remove(&origin);
                inbox.wake(&origin);
            });
        judging.await;
    }
}

impl Inbox {
    /// Another one first each round: who comes first has the first word with the homeserver.
    fn unproven_origins(&self, round_number: u64) -> Vec<ServerName> {
        let mut state = self.state();
        let mut origins = state.load.unproven();
        origins.sort_unstable();
        state.judged_through.retain(|origin, _| origins.binary_search(origin).is_ok());
        drop(state);
        if !origins.is_empty() {
            let first = round_number % origins.len() as u64;
            origins.rotate_left(usize::try_from(first).unwrap_or(0));
        }
        origins
    }

    async fn judge_again(&self, origin: &ServerName) {
        if let Err(error) = self.judge_origin(origin).await {
            tracing::error!(%origin, %error, "unverified mail can't be judged now");
        }
    }

    /// Judges the unverified mail of one origin, page by page, for as long as something of a page is decided: the
    /// others mostly wait for the same keys. Each time begins behind where the one before ended, so that no envelope,
    /// however many made-up ones came before it, waits for ever.
    async fn judge_origin(&self, origin: &ServerName) -> Result<(), StoreError> {
        let begun = self.state().judged_through.remove(origin).unwrap_or(0);
        let (mut after, mut has_wrapped) = (begun, false);
        loop {
            let page = rows::unverified(self.database(), origin.clone(), after, PAGE).await?;
            let Some(last) = page.last() else {
                if has_wrapped || begun == 0 {
                    return Ok(());
                }
                (after, has_wrapped) = (0, true);
                continue;
            };
            after = last.id;
            let mut is_any_decided = false;
            for unverified in page {
                is_any_decided |= self.judge_one(unverified).await?;
            }
            if !is_any_decided || (has_wrapped && after >= begun) {
                self.state().judged_through.insert(origin.clone(), after);
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
        let judged = judge(self.site(), incoming, Instant::now() + KEY_WAIT).await;
        if matches!(judged.standing, Standing::Unverified(_)) {
            return Ok(false);
        }
        if !self.admit(&judged) {
            return Ok(false);
        }
        let stored = rows::judge(self.database(), id, judged.clone(), self.now()).await;
        match judged.standing {
            Standing::Receipts(_) => self.site().bells.told_by(&judged.key.origin),
            _ => self.site().bells.receipts.notify_one(),
        }
        {
            let mut state = self.state();
            match stored {
                Ok(Some(stored)) => {
                    state.release(&held);
                    state.count(&judged, stored);
                }
                Ok(None) | Err(_) => state.release(&judged),
            }
        }
        self.shared.mail_due.notify_one();
        if let Some(Stored::Known { .. }) = stored? {
            self.enclose_later(&judged).await?;
        }
        Ok(true)
    }

    /// It was at least the time at which mail came last; before that, nobody can say how long the node was off.
    async fn trusted_time(&self) -> TrustedTime {
        let last = rows::newest_arrival(self.database()).await.unwrap_or_else(|error| {
            tracing::error!(%error, "the database does not say when mail came last; nothing is taken for too old for half an hour");
            Some(Timestamp::EPOCH)
        });
        TrustedTime::since(last.unwrap_or_else(|| self.now()), self.shared.started.elapsed())
    }

    /// The time by which things are too old.
    fn now_to_expire(&self, trusted: &mut TrustedTime) -> Timestamp {
        let (now, change) = trusted.look(self.now(), self.shared.started.elapsed());
        match change {
            ClockChange::None => {}
            ClockChange::Doubted(ahead) => {
                let days = ahead.as_secs() / (24 * 3600);
                tracing::warn!(
                    clock.days_ahead = days,
                    "the clock has gone ahead by days since mail came last: if the node was off for that long, all is well; if not, set the clock. For half an hour nothing that waits is taken for too old"
                );
            }
            ClockChange::Believed => tracing::info!("what is too old goes by the clock again"),
        }
        now
    }

    /// Parks what has waited in a room's backlog for as long as any relay may hold what it lacks.
    async fn expire_backlog(&self) {
        let before = self.now().before(TIME_TO_LIVE);
        match parked_events::expire(self.database(), before, GAP_NEVER_CLOSED, self.now()).await {
            Ok(0) => {}
            Ok(count) => {
                tracing::warn!(count, "events are parked: {GAP_NEVER_CLOSED}");
                self.site().bells.receipts.notify_one();
            }
            Err(error) => tracing::error!(%error, "a backlog that is too old can't be parked now"),
        }
    }

    /// Removes what nobody has proven, from when on no relay may hold a copy that somebody could: it is too old to be
    /// delivered, and would take the room of what is made up next for ever.
    async fn expire_unproven(&self, now: Timestamp) {
        let before = now.before(seen::REMEMBERED);
        let mut expired = 0;
        loop {
            let step = self.expire_unproven_step(before).await.unwrap_or_else(|error| {
                tracing::error!(%error, "what is not proven and too old can't be removed now");
                0
            });
            expired += step;
            if step == 0 {
                break;
            }
        }
        if expired > 0 {
            tracing::warn!(
                expired,
                "parked mail and events that nobody proved are too old and were removed"
            );
        }
    }

    /// How many were removed.
    async fn expire_unproven_step(&self, before: Timestamp) -> Result<usize, StoreError> {
        let envelopes = rows::expire_unproven(self.database(), before).await?;
        {
            let mut state = self.state();
            for (origin, bytes) in &envelopes {
                state.load.release(origin, Class::Unproven, Weight::of(*bytes));
            }
        }
        let events = parked_events::expire_unproven(self.database(), before).await?;
        let mut state = self.state();
        events.iter().for_each(|share| state.give_back(share));
        Ok(envelopes.len() + events.len())
    }

    async fn prune(&self, now: Timestamp) {
        loop {
            match seen::prune(self.database(), now).await {
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
