//! Delivers the mail of each origin to the homeserver, some envelopes at a turn.

use std::time::Duration;

use restante_federation_proto::ServerName;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Inbox;
use super::schedule::{Schedule, Turn};
use crate::restart::caught;

/// Origins whose mail is delivered at once: a homeserver does little in parallel.
const ORIGINS_AT_ONCE: usize = 8;

/// Envelopes of one origin before it is the next one's turn.
const ENVELOPES_PER_TURN: usize = 10;

/// How long deliveries under way may take after shutdown is asked for.
const DRAIN: Duration = Duration::from_secs(10);

pub(super) async fn run(inbox: &Inbox, shutdown: &CancellationToken) {
    let mut schedule = Schedule::default();
    let mut turns = JoinSet::new();
    inbox.wake_all();
    loop {
        inbox.tell(&mut schedule);
        while turns.len() < ORIGINS_AT_ONCE
            && let Some(origin) = schedule.begin(Instant::now())
        {
            turns.spawn(survived_turn(inbox.clone(), origin, shutdown.clone()));
        }
        let due = schedule.next_due();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = turns.join_next() => match ended {
                Ok((origin, ended)) => {
                    let random = inbox.shared.site.dice.fraction();
                    schedule.ended(origin, ended, Instant::now(), random);
                }
                Err(error) => tracing::error!(%error, "a delivery was cut off"),
            },
            () = inbox.shared.mail_due.notified() => {}
            () = sleep_until(due), if due.is_some() && turns.len() < ORIGINS_AT_ONCE => {}
        }
    }
    let drained = async { while turns.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!("deliveries under way were cut off; they are repeated at the next start");
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// A turn that panics is repeated later like one that failed.
async fn survived_turn(
    inbox: Inbox,
    origin: ServerName,
    shutdown: CancellationToken,
) -> (ServerName, (Turn, usize)) {
    let turned = caught("a delivery", turn(inbox, origin.clone(), shutdown)).await;
    turned.unwrap_or((origin, (Turn::Retry(None), 0)))
}

async fn turn(
    inbox: Inbox,
    origin: ServerName,
    shutdown: CancellationToken,
) -> (ServerName, (Turn, usize)) {
    for delivered in 0..ENVELOPES_PER_TURN {
        if shutdown.is_cancelled() {
            return (origin, (Turn::More, delivered));
        }
        match inbox.deliver_next(&origin).await {
            Ok(None) => {}
            Ok(Some(turn)) => return (origin, (turn, delivered)),
            Err(error) => {
                tracing::error!(%origin, %error, "the inbox can't be used; delivery waits");
                return (origin, (Turn::Retry(None), delivered));
            }
        }
    }
    (origin, (Turn::More, ENVELOPES_PER_TURN))
}

impl Inbox {
    fn tell(&self, schedule: &mut Schedule) {
        let (woken, progressed) = {
            let mut state = self.state();
            (std::mem::take(&mut state.woken), std::mem::take(&mut state.progressed))
        };
        woken.iter().for_each(|origin| schedule.arrived(origin));
        if !progressed.is_empty() {
            schedule.progressed(&progressed);
        }
    }
}
