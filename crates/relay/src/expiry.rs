//! Work on what is stored that goes on behind the requests: mail expires, and old bodies are sealed with the newest key.
//!
//! All of it goes in small steps, so that deposits get their turn in between.

use std::time::Duration;

use restante_federation_proto::{ClockChange, Timestamp, TrustedTime};
use restante_mailbox::{Due, Expired};
use tokio::time::Instant;

use crate::state::RelayState;

/// How often to look: mail may stay this much longer than its time, and typing is worth nothing after a minute.
const INTERVAL: Duration = Duration::from_secs(10);

/// Envelopes per step.
const EXPIRE_BATCH_MAX: usize = 500;
/// Bodies per step; each is read, sealed and written.
const RESEAL_BATCH_MAX: usize = 50;
/// How long sealing may go on before it pauses for an interval.
const RESEAL_TIME_MAX: Duration = Duration::from_secs(2);

/// How often the time is noted by which mail has expired: what a start believes may be this much older.
const NOTE_INTERVAL: Duration = Duration::from_hours(1);

/// Whether bodies may be sealed with another key than the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sealing {
    /// There may be some since the last start.
    MayBeOld,
    /// Each has had its turn, and what came since was sealed with the newest key; or there is no key at all.
    UpToDate,
}

/// Runs until the relay stops.
pub(crate) async fn run(relay: RelayState, mut sealing: Sealing) {
    let mut left = 0;
    let mut calendar = Calendar::open(&relay).await;
    while !relay.shutdown.is_cancelled() {
        let now = calendar.now(&relay).await;
        expire(&relay, now).await;
        if sealing == Sealing::MayBeOld {
            sealing = reseal(&relay, &mut left).await;
        }
        tokio::select! {
            biased;
            () = relay.shutdown.cancelled() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// The time by which mail expires, and when it was noted last.
struct Calendar {
    trusted: TrustedTime,
    noted: Option<Timestamp>,
}

impl Calendar {
    async fn open(relay: &RelayState) -> Self {
        let noted = match relay.stores.upkeep.expired_to().await {
            Ok(noted) => noted,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    "the database does not say when mail expired last; none expires for half an hour"
                );
                Some(Timestamp::EPOCH)
            }
        };
        let since = noted.unwrap_or_else(|| relay.clock.now());
        Self { trusted: TrustedTime::since(since, relay.started.up()), noted }
    }

    async fn now(&mut self, relay: &RelayState) -> Timestamp {
        let (now, change) = self.trusted.look(relay.clock.now(), relay.started.up());
        match change {
            ClockChange::None => {}
            ClockChange::Doubted(ahead) => {
                let days = ahead.as_secs() / (24 * 3600);
                tracing::warn!(
                    clock.days_ahead = days,
                    "the clock has gone ahead by days since the relay looked at it last: if it was off for that long, all is well; if not, set the clock. For half an hour no mail expires by it"
                );
            }
            ClockChange::Believed => tracing::info!("mail expires by the clock again"),
        }
        let is_noted =
            self.noted.is_some_and(|noted| noted <= now && now < noted.after(NOTE_INTERVAL));
        if !is_noted {
            match relay.stores.upkeep.note_expired_to(now).await {
                Ok(()) => self.noted = Some(now),
                // As a full disk does; what was noted before stands.
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(error, "the time by which mail expired can't be noted");
                }
            }
        }
        now
    }
}

async fn expire(relay: &RelayState, now: Timestamp) {
    let rules = relay.rules();
    let due = Due { now, remembered_from: now.before(rules.age.time_to_live) };
    let mut total = Expired::default();
    while !relay.shutdown.is_cancelled() {
        match relay.store.expire(due, EXPIRE_BATCH_MAX).await {
            Ok(step) if step == Expired::default() => break,
            Ok(step) => {
                total.envelopes += step.envelopes;
                total.prolonged += step.prolonged;
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "expiry stopped; it goes on later"
                );
                break;
            }
        }
    }
    if total.envelopes > 0 || total.prolonged > 0 {
        let (expired, held) = (total.envelopes, total.prolonged);
        tracing::info!(envelopes.expired = expired, envelopes.held = held, "expire");
    }
}

/// One part of a round in which each envelope has its turn.
async fn reseal(relay: &RelayState, left: &mut u64) -> Sealing {
    let begun = Instant::now();
    let mut resealed = 0;
    let mut sealing = Sealing::MayBeOld;
    while sealing == Sealing::MayBeOld
        && begun.elapsed() < RESEAL_TIME_MAX
        && !relay.shutdown.is_cancelled()
    {
        match relay.stores.upkeep.reseal(RESEAL_BATCH_MAX).await {
            Ok(step) if step.looked_at == 0 => sealing = Sealing::UpToDate,
            Ok(step) => {
                resealed += step.resealed;
                *left += step.left;
                relay.counted.quarantined(step.quarantined);
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "sealing with the newest key stopped; it goes on later"
                );
                break;
            }
        }
    }
    if resealed > 0 {
        tracing::info!(envelopes.resealed = resealed, "reseal");
    }
    if sealing == Sealing::UpToDate && *left == 0 {
        tracing::info!("all mail is sealed as the key file says");
    } else if sealing == Sealing::UpToDate {
        tracing::error!(
            envelopes.left = *left,
            "all mail is sealed as the key file says but what lies on damaged pages; keep the old keys, and check the disk"
        );
    }
    sealing
}
