//! Sends what is not known to have arrived, destination by destination, as [`super::rule`] decides.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use restante_federation_proto::{ServerName, Timestamp};
use restante_relay_api::limits::TIME_TO_LIVE;
use restante_sqlite::StoreError;
use tokio::time::sleep;

use super::Outbox;
use super::rule::{Failed, Outlook, Step, Wanted, look_again, next_step};
use crate::delivery::Resent;
use crate::store::outbox::{self, Waiting};

/// Destinations that are served at once.
const AT_ONCE: usize = 8;

/// Copies of one destination that are sent or left before the others are looked at anew.
const TURN_MAX: u32 = 50;

/// Between two copies for one destination: a homeserver that was away has other mail to take as well.
const PACE: Duration = Duration::from_millis(200);

/// The longest sleep: clocks are set, and copies become too old.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

/// The wait after the database failed.
const RETRY: Duration = Duration::from_secs(60);

/// At least between two passes: what comes in between is looked at together.
const PASS_EVERY: Duration = Duration::from_secs(1);

/// What is known of destinations that did not answer.
#[derive(Default)]
struct Silent {
    by_name: Mutex<HashMap<ServerName, (u32, Failed)>>,
}

pub(super) async fn run(outbox: &Outbox) {
    let mut returns = outbox.site.destinations.returns();
    let silent = Silent::default();
    loop {
        let wait = match outbox.pass(&silent).await {
            Ok(next) => next.map_or(SLEEP_MAX, |next| next.since(outbox.site.clock.now())),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "what was left with relays can't be looked at now");
                RETRY
            }
        };
        let due = sleep(wait.clamp(PASS_EVERY, SLEEP_MAX));
        tokio::select! {
            () = due => continue,
            () = outbox.site.bells.copies.notified() => {}
            // Whoever missed one finds out by the time.
            _ = returns.recv() => {}
        }
        sleep(PASS_EVERY).await;
    }
}

impl Outbox {
    /// Looks at each destination once; when the next step is due.
    async fn pass(&self, silent: &Silent) -> Result<Option<Timestamp>, StoreError> {
        let now = self.site.clock.now();
        while outbox::expire(&self.site.database, now.before(TIME_TO_LIVE)).await? > 0 {
            tracing::warn!("copies of mail that was never confirmed are too old and go");
        }
        let waiting = outbox::waiting(&self.site.database).await?;
        silent.retain(&waiting);
        let steps = stream::iter(waiting).map(|waiting| self.serve(waiting, silent));
        let nexts: Vec<Option<Timestamp>> = steps.buffer_unordered(AT_ONCE).collect().await;
        Ok(nexts.into_iter().flatten().min())
    }

    /// Does what is due for one destination; when to look at it next.
    async fn serve(&self, waiting: Waiting, silent: &Silent) -> Option<Timestamp> {
        let destination = &waiting.destination;
        let served = self.try_serve(&waiting, silent).await;
        served.unwrap_or_else(|error| {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, %destination, "what was left for a destination can't be looked at now");
            Some(self.site.clock.now().after(RETRY))
        })
    }

    async fn try_serve(
        &self,
        waiting: &Waiting,
        silent: &Silent,
    ) -> Result<Option<Timestamp>, StoreError> {
        let (destination, site) = (&waiting.destination, &self.site);
        let confirm_wait = self.settings.current().confirm_wait;
        let step = || {
            let outlook = Outlook {
                oldest_at: waiting.oldest_at,
                wanted: if waiting.wanted > 0 { Wanted::Some } else { Wanted::None },
                online_since: site.destinations.online_since(destination),
                failed: silent.failure(destination),
            };
            next_step(&outlook, confirm_wait, site.clock.now())
        };
        let mut next = step();
        if next == Step::Look {
            if !site.destinations.reachable(destination).await {
                let look_at = silent.failed(destination, site.clock.now(), site.dice.fraction());
                self.leave_wanted(waiting).await?;
                return Ok(Some(look_at));
            }
            silent.answered(destination);
            next = step();
        }
        match next {
            Step::Wait(until) => Ok(Some(until)),
            Step::Send { left_by } => self.send_due(destination, left_by, silent).await,
            // It fell silent again at this moment.
            Step::Look => Ok(Some(site.clock.now().after(PASS_EVERY))),
        }
    }

    /// Sends what is due in the order of its numbers, until the first failure.
    async fn send_due(
        &self,
        destination: &ServerName,
        left_by: Option<Timestamp>,
        silent: &Silent,
    ) -> Result<Option<Timestamp>, StoreError> {
        let database = &self.site.database;
        let due = outbox::due(database, destination.clone(), left_by, TURN_MAX).await?;
        for seq in due {
            match self.delivery.send_copy(destination, seq).await {
                Resent::Delivered => {
                    silent.answered(destination);
                    sleep(PACE).await;
                }
                Resent::Gone | Resent::Refused => {}
                Resent::Failed => {
                    let (now, random) = (self.site.clock.now(), self.site.dice.fraction());
                    return Ok(Some(silent.failed(destination, now, random)));
                }
            }
        }
        // There may be more, and the rule says when that is due.
        Ok(Some(self.site.clock.now().after(PASS_EVERY)))
    }

    /// Leaves what nobody is known to hold with the relays of a destination that does not answer.
    async fn leave_wanted(&self, waiting: &Waiting) -> Result<(), StoreError> {
        if waiting.wanted == 0 {
            return Ok(());
        }
        let (database, destination) = (&self.site.database, &waiting.destination);
        for seq in outbox::due(database, destination.clone(), None, TURN_MAX).await? {
            if let Err(reason) = self.delivery.leave_copy(destination, seq).await {
                tracing::warn!(%destination, seq, reason, "mail that its relays lost could not be left again; it is tried later");
                return Ok(());
            }
            outbox::left_again(database).await?;
        }
        Ok(())
    }
}

impl Silent {
    fn failure(&self, server: &ServerName) -> Option<Failed> {
        self.lock().get(server).map(|(_, failed)| *failed)
    }

    /// When to look for it again.
    fn failed(&self, server: &ServerName, now: Timestamp, random: f64) -> Timestamp {
        let mut silent = self.lock();
        let (failures, failed) =
            silent.entry(server.clone()).or_insert((0, Failed { at: now, until: now }));
        *failures += 1;
        *failed = Failed { at: now, until: look_again(*failures, now, random) };
        failed.until
    }

    fn answered(&self, server: &ServerName) {
        self.lock().remove(server);
    }

    /// Forgets those for whom nothing waits.
    fn retain(&self, waiting: &[Waiting]) {
        self.lock().retain(|server, _| waiting.iter().any(|one| one.destination == *server));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ServerName, (u32, Failed)>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
