//! Sends what is not known to have arrived, destination by destination, as [`super::rule`] decides.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use restante_federation_proto::{ServerName, Timestamp};
use restante_relay_api::limits::TIME_TO_LIVE;
use restante_sqlite::StoreError;
use tokio::time::{Instant, sleep};

use super::Outbox;
use super::rule::{Failed, Failure, Outlook, Step, Wanted, look_again, next_step};
use crate::backoff::backoff;
use crate::delivery::{Releft, Resent};
use crate::store::outbox::{self, Vain, Waiting};

/// Destinations that are served at once.
const AT_ONCE: usize = 8;

/// Copies of one destination that are sent or left before the others are looked at anew.
const TURN_MAX: u32 = 50;

/// How long one destination is served before the others are looked at anew: whoever answers slowly holds up nobody else.
const TURN_TIME: Duration = Duration::from_secs(30);

/// The wait after no relay of a destination took anything, doubled each time, ...
const LEAVE_FIRST: Duration = Duration::from_secs(60);

/// ... up to this.
const LEAVE_MAX: Duration = Duration::from_secs(3600);

/// Between two copies for one destination: a homeserver that was away has other mail to take as well.
const PACE: Duration = Duration::from_millis(200);

/// The longest sleep: clocks are set, and copies become too old.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

/// The wait after the database failed.
const RETRY: Duration = Duration::from_secs(60);

/// At least between two passes: what comes in between is looked at together.
const PASS_EVERY: Duration = Duration::from_secs(1);

/// What is known of destinations that did not take what was sent, or whose relays did not.
#[derive(Default)]
struct Silent {
    by_name: Mutex<HashMap<ServerName, Tries>>,
}

#[derive(Default)]
struct Tries {
    /// Tries to reach it or send to it that failed in a row, and the last.
    sent: Option<(u32, Failed)>,
    /// Times in a row that its relays took nothing, and until when they are left alone.
    left: Option<(u32, Timestamp)>,
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
            biased;
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
        for tidied in [self.expire(now).await, self.make_room().await] {
            if let Err(error) = tidied {
                let error = &error as &dyn std::error::Error;
                tracing::error!(
                    error,
                    "copies that are too old, or too many, can't be removed now"
                );
            }
        }
        let waiting = outbox::waiting(&self.site.database, now).await?;
        silent.retain(&waiting);
        let steps = stream::iter(waiting).map(|waiting| self.serve(waiting, silent));
        let nexts: Vec<Option<Timestamp>> = steps.buffer_unordered(AT_ONCE).collect().await;
        Ok(nexts.into_iter().flatten().min())
    }

    async fn expire(&self, now: Timestamp) -> Result<(), StoreError> {
        while outbox::expire(&self.site.database, now.before(TIME_TO_LIVE)).await? > 0 {
            tracing::warn!("copies of mail that was never confirmed are too old and go");
        }
        Ok(())
    }

    async fn make_room(&self) -> Result<(), StoreError> {
        let bytes_max = self.settings.current().bytes_max;
        while outbox::make_room(&self.site.database, bytes_max).await? > 0 {
            tracing::warn!("copies beyond outbox.bytes_max go");
        }
        Ok(())
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
            if site.destinations.reachable(destination).await {
                silent.answered(destination);
                next = step();
            } else {
                next = Step::Wait(silent.failed(destination, Failure::Silence, self));
            }
        }
        let next = match next {
            Step::Wait(until) => Some(until),
            Step::Rest => None,
            Step::Send { left_by } => return self.send_due(destination, left_by, silent).await,
            // It fell silent again at this moment.
            Step::Look => Some(site.clock.now().after(PASS_EVERY)),
        };
        // It can't be told itself now: what nobody is known to hold goes to its relays.
        let leaving = self.leave_wanted(waiting, silent).await?;
        Ok([next, leaving, waiting.next_at].into_iter().flatten().min())
    }

    /// Sends what is due in the order of its numbers, until the first failure.
    async fn send_due(
        &self,
        destination: &ServerName,
        left_by: Option<Timestamp>,
        silent: &Silent,
    ) -> Result<Option<Timestamp>, StoreError> {
        let (database, begun) = (&self.site.database, Instant::now());
        let until = (left_by, self.site.clock.now());
        let due = outbox::due(database, destination.clone(), until, TURN_MAX).await?;
        for seq in due.into_iter().take_while(|_| begun.elapsed() < TURN_TIME) {
            let failure = match self.delivery.send_copy(destination, seq).await {
                Resent::Delivered => {
                    silent.took(destination);
                    sleep(PACE).await;
                    continue;
                }
                Resent::Gone | Resent::InVain(Vain::Unfit(_)) => continue,
                Resent::InVain(Vain::Refused(_)) => Failure::Refusal,
                Resent::InVain(Vain::Failed) | Resent::Busy => Failure::Copy,
            };
            silent.failed(destination, failure, self);
            break;
        }
        // There may be more, and the rule says when that is due.
        Ok(Some(self.site.clock.now().after(PASS_EVERY)))
    }

    /// Leaves what nobody is known to hold with the relays of a destination that can't be sent to; when to go on.
    async fn leave_wanted(
        &self,
        waiting: &Waiting,
        silent: &Silent,
    ) -> Result<Option<Timestamp>, StoreError> {
        let (destination, now) = (&waiting.destination, self.site.clock.now());
        if waiting.to_leave == 0 {
            return Ok(None);
        }
        if let Some(until) = silent.relays_rest_until(destination).filter(|until| *until > now) {
            return Ok(Some(until));
        }
        let (database, begun) = (&self.site.database, Instant::now());
        let due = outbox::to_leave(database, destination.clone(), now, TURN_MAX).await?;
        let (mut left, mut in_vain) = (0, 0);
        for seq in due.into_iter().take_while(|_| begun.elapsed() < TURN_TIME) {
            match self.delivery.leave_copy(destination, seq).await {
                Releft::Left => left += 1,
                Releft::Nowhere | Releft::Gone => {}
                Releft::InVain(reason) => {
                    tracing::warn!(%destination, seq, reason, "mail that its relays lost could not be left again; it is tried later");
                    in_vain += 1;
                }
            }
        }
        if left == 0 && in_vain > 0 {
            return Ok(Some(silent.relays_failed(destination, self)));
        }
        silent.relays_took(destination);
        // There may be more; what was left, or can't be, is not due again at once.
        Ok(Some(self.site.clock.now().after(PASS_EVERY)))
    }
}

impl Silent {
    fn failure(&self, server: &ServerName) -> Option<Failed> {
        self.lock().get(server).and_then(|tries| tries.sent).map(|(_, failed)| failed)
    }

    /// When to try it again.
    fn failed(&self, server: &ServerName, what: Failure, outbox: &Outbox) -> Timestamp {
        let (now, random) = (outbox.site.clock.now(), outbox.site.dice.fraction());
        let mut silent = self.lock();
        let tries = silent.entry(server.clone()).or_default();
        let failures = tries.sent.map_or(1, |(failures, _)| failures.saturating_add(1));
        let until = look_again(what, failures, now, random);
        tries.sent = Some((failures, Failed { at: now, until, what }));
        until
    }

    /// It is there: it was not away for ever, and what it did not take is another matter.
    fn answered(&self, server: &ServerName) {
        if let Some(tries) = self.lock().get_mut(server) {
            tries.sent.take_if(|(_, failed)| failed.what == Failure::Silence);
        }
    }

    /// It took a copy.
    fn took(&self, server: &ServerName) {
        if let Some(tries) = self.lock().get_mut(server) {
            tries.sent = None;
        }
    }

    fn relays_rest_until(&self, server: &ServerName) -> Option<Timestamp> {
        self.lock().get(server).and_then(|tries| tries.left).map(|(_, until)| until)
    }

    /// When to try its relays again.
    fn relays_failed(&self, server: &ServerName, outbox: &Outbox) -> Timestamp {
        let (now, random) = (outbox.site.clock.now(), outbox.site.dice.fraction());
        let mut silent = self.lock();
        let tries = silent.entry(server.clone()).or_default();
        let failures = tries.left.map_or(1, |(failures, _)| failures.saturating_add(1));
        let until = now.after(backoff(failures, LEAVE_FIRST, LEAVE_MAX, random));
        tries.left = Some((failures, until));
        until
    }

    fn relays_took(&self, server: &ServerName) {
        if let Some(tries) = self.lock().get_mut(server) {
            tries.left = None;
        }
    }

    /// Forgets those for whom nothing waits.
    fn retain(&self, waiting: &[Waiting]) {
        self.lock().retain(|server, _| waiting.iter().any(|one| one.destination == *server));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ServerName, Tries>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
