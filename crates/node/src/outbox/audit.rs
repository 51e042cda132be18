//! Asks relays what became of what they took.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use restante_federation::Peer;
use restante_federation_proto::{ServerName, Timestamp};
use restante_relay_api::limits::LEFT_MAX;
use restante_relay_api::{LeftAnswer, LeftRequest, LeftTransaction, hex};
use restante_sqlite::StoreError;
use tokio::time::{Instant, sleep};

use super::Outbox;
use super::rule::{Blame, HolderStep, Taken, holder_step};
use super::trust::Judgement;
use crate::backoff::backoff;
use crate::left_call::call_left;
use crate::relay_call::{CallError, ClockOffset};
use crate::store::outbox::audit::{self, Holding, Intervals, ToAsk};

/// Bytes of an answer: a word for each transaction.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The wait before a relay that did not answer is asked again; the longest is the interval of audits.
const RETRY_FIRST: Duration = Duration::from_secs(60);

/// At least between two rounds.
const ROUND_EVERY: Duration = Duration::from_secs(1);

/// The longest sleep.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

/// How long a relay without the endpoint is not asked: it may be upgraded.
const UNKNOWN_REST: Duration = Duration::from_secs(24 * 3600);

/// How long one relay is asked in one round: whoever answers slowly holds up the others' questions no longer.
const TURN_TIME: Duration = Duration::from_secs(60);

/// Relays of which something is remembered before those that do not rest are forgotten.
const REMEMBERED_MAX: usize = 10_000;

/// Relays that are asked at once.
const AT_ONCE: usize = 8;

/// How long a relay may be silent before what it holds is left elsewhere as well: longer than a reboot or an upgrade, and
/// short beside the time that its recipient may be away.
const SILENT_MAX: Duration = Duration::from_secs(6 * 3600);

/// What is remembered of relays while the node runs, by where they are: a record may borrow a name.
#[derive(Default)]
struct Memory {
    of: Mutex<HashMap<Peer, Known>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// Questions in a row that it did not answer, and since when.
    failures: u32,
    failing_since: Option<Timestamp>,
    /// Until when it is not asked.
    rests_until: Option<Timestamp>,
    offset: ClockOffset,
}

/// A relay with those whose mail it is to be asked about.
struct Visit {
    relay: Peer,
    destinations: Vec<ServerName>,
    /// Those whose own relay it is, which empty it: one of ours that delivers onward is not.
    emptied_by: BTreeSet<ServerName>,
}

pub(super) async fn run(outbox: &Outbox) {
    let memory = Memory::default();
    loop {
        let wait = match outbox.round(&memory).await {
            Ok(next) => next.map_or(SLEEP_MAX, |next| next.since(outbox.site.clock.now())),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "relays can't be asked what became of mail now");
                RETRY_FIRST
            }
        };
        // A first copy makes no difference before the time of a first question has passed.
        let first = outbox.settings.current().audit_after;
        sleep(wait.min(first).clamp(ROUND_EVERY, SLEEP_MAX)).await;
    }
}

impl Outbox {
    /// Asks each relay whose time has come; when the next one's does.
    async fn round(&self, memory: &Memory) -> Result<Option<Timestamp>, StoreError> {
        let settings = self.settings.current();
        // Not all nodes that left mail at one time ask at one time.
        let then = settings.audit_interval.mul_f64(0.8 + 0.2 * self.site.dice.fraction());
        let intervals = Intervals { first: settings.audit_after, then };
        let holdings = audit::holdings(&self.site.database, intervals).await?;
        let now = self.site.clock.now();
        let (due, later): (Vec<_>, Vec<_>) =
            holdings.into_iter().partition(|holding| holding.ask_at <= now);
        let mut next = later.into_iter().map(|holding| holding.ask_at).min();
        let mut visits = Vec::new();
        for visit in self.visits(due).await? {
            match memory.of(&visit.relay).rests_until.filter(|until| *until > now) {
                Some(until) => next = Some(next.map_or(until, |next| next.min(until))),
                None => visits.push(visit),
            }
        }
        let asking = stream::iter(visits).map(|visit| self.audit(visit, memory));
        let asked: Vec<Result<(), StoreError>> = asking.buffer_unordered(AT_ONCE).collect().await;
        asked.into_iter().collect::<Result<(), _>>()?;
        Ok(next)
    }

    /// Where these relays are for their destinations. Who is no relay of the destination any longer is nobody to ask, and the
    /// destination looks for its mail elsewhere: so what it holds is left elsewhere as well.
    async fn visits(&self, due: Vec<Holding>) -> Result<Vec<Visit>, StoreError> {
        let mut visits: Vec<Visit> = Vec::new();
        for Holding { relay, destination, .. } in due {
            // What can't be read says nothing against the relay, which is asked in another round.
            let Ok(holding) = self.site.relays.holding(&destination).await else { continue };
            let is_recipients = holding.iter().any(|peer| peer.name == relay);
            // What was left to be delivered onward lies with a relay of our own.
            let mut known = holding.into_iter().chain(self.site.relays.outgoing());
            let Some(peer) = known.find(|peer| peer.name == relay) else {
                self.doubt(&relay, &destination, "its recipient names it no longer").await?;
                let now = self.site.clock.now();
                audit::not_asked(&self.site.database, (relay, destination), now).await?;
                continue;
            };
            let emptied_by = is_recipients.then(|| destination.clone());
            match visits.iter_mut().find(|visit| visit.relay == peer) {
                Some(visit) => {
                    visit.destinations.push(destination);
                    visit.emptied_by.extend(emptied_by);
                }
                None => visits.push(Visit {
                    relay: peer,
                    destinations: vec![destination],
                    emptied_by: emptied_by.into_iter().collect(),
                }),
            }
        }
        Ok(visits)
    }

    /// Asks one relay about all that it was not asked about since the interval, and about everything as soon as it does not
    /// know something.
    async fn audit(&self, visit: Visit, memory: &Memory) -> Result<(), StoreError> {
        let Visit { relay, destinations, emptied_by } = visit;
        let settings = self.settings.current();
        let (begun, turn) = (self.site.clock.now(), Instant::now());
        let mut asked_since = begun.before(settings.audit_interval.mul_f64(0.8));
        let database = &self.site.database;
        while turn.elapsed() < TURN_TIME {
            let name = relay.name.clone();
            let page = audit::to_ask(database, name, &destinations, asked_since, LEFT_MAX).await?;
            if page.is_empty() {
                return Ok(());
            }
            match self.ask(&relay, &page, &emptied_by, memory).await {
                Ok(answers) => {
                    memory.answered(&relay);
                    if self.enter(&relay.name, answers).await? {
                        asked_since = begun;
                    }
                }
                Err(error) => {
                    let silent_for = memory.rest(&relay, &error, self);
                    if silent_for >= SILENT_MAX {
                        for destination in &destinations {
                            self.doubt(&relay.name, destination, "it does not answer").await?;
                        }
                    }
                    return Ok(());
                }
            }
        }
        // The rest is due as before.
        Ok(())
    }

    /// Counts what `relay` holds for `destination` as held by nobody, so that it is left with the others too.
    async fn doubt(
        &self,
        relay: &ServerName,
        destination: &ServerName,
        why: &str,
    ) -> Result<(), StoreError> {
        let mut doubted = 0;
        loop {
            let of = (relay.clone(), destination.clone());
            let now = self.site.clock.now();
            match audit::doubt(&self.site.database, of, now).await? {
                0 => break,
                more => doubted += more,
            }
        }
        if doubted > 0 {
            tracing::warn!(%relay, %destination, doubted, why, "what the relay holds is left with the other relays as well");
            self.site.bells.copies.notify_one();
        }
        Ok(())
    }

    async fn ask(
        &self,
        relay: &Peer,
        asked: &[ToAsk],
        emptied_by: &BTreeSet<ServerName>,
        memory: &Memory,
    ) -> Result<Vec<(ToAsk, HolderStep)>, CallError> {
        let answer = match self.call(relay, asked, memory).await {
            Err(CallError::Clock { theirs }) => {
                let offset = ClockOffset::between(self.site.clock.now(), theirs);
                memory.keep_offset(relay, offset);
                self.call(relay, asked, memory).await?
            }
            answer => answer?,
        };
        let answer: LeftAnswer = serde_json::from_slice(&answer)
            .map_err(|error| CallError::Unreadable(error.to_string()))?;
        if answer.states.len() != asked.len() {
            return Err(CallError::Unreadable("it answers another question".to_owned()));
        }
        let now = self.site.clock.now();
        let steps = asked.iter().cloned().zip(answer.states).map(|(asked, state)| {
            let ToAsk { since, expires_at, missed_at, .. } = asked;
            let missed_at = missed_at.filter(|_| emptied_by.contains(&asked.destination));
            let step = holder_step(state, Taken { since, expires_at, missed_at }, now);
            (asked, step)
        });
        Ok(steps.collect())
    }

    async fn call(
        &self,
        relay: &Peer,
        asked: &[ToAsk],
        memory: &Memory,
    ) -> Result<bytes::Bytes, CallError> {
        let offset = memory.of(relay).offset;
        let ask = asked.iter().map(|asked| LeftTransaction {
            destination: asked.destination.clone(),
            txn_id: asked.txn_id.clone(),
            content_sha256: hex(&asked.content_sha256),
        });
        let request = LeftRequest {
            ask: ask.collect(),
            withdraw: Vec::new(),
            signed_at: offset.apply(self.site.clock.now()),
        };
        call_left(&self.site, relay, &request, ANSWER_BYTES_MAX).await
    }

    /// Enters what the relay said; whether it lost something that it should have.
    async fn enter(
        &self,
        relay: &ServerName,
        answers: Vec<(ToAsk, HolderStep)>,
    ) -> Result<bool, StoreError> {
        let is_lost = |step: &HolderStep| matches!(step, HolderStep::Lost(_) | HolderStep::RanOut);
        let lost = answers.iter().filter(|(_, step)| is_lost(step)).count();
        let is_blamed = answers.iter().any(|(_, step)| *step == HolderStep::Lost(Blame::Relays));
        let (asked, now) = (answers.len(), self.site.clock.now());
        let worst = audit::answered(&self.site.database, relay.clone(), answers, now).await?;
        if lost > 0 {
            tracing::warn!(%relay, lost, asked, "the relay knows nothing of mail that it took; it is sent or left again");
            self.site.bells.copies.notify_one();
        }
        if let Some((Judgement::Distrusted, destination)) = worst {
            tracing::error!(%relay, %destination, "the relay lost or withheld mail again and again: its word does not count as sent for this destination until mail arrives through it, or it keeps what it gets a day later; ask its operator, leave mail elsewhere with `restante relays add`, or say that its word counts with `restante relays trust`");
        }
        Ok(is_blamed)
    }
}

impl Memory {
    fn of(&self, relay: &Peer) -> Known {
        self.lock().get(relay).copied().unwrap_or_default()
    }

    fn keep_offset(&self, relay: &Peer, offset: ClockOffset) {
        self.lock().entry(relay.clone()).or_default().offset = offset;
    }

    fn answered(&self, relay: &Peer) {
        let mut known = self.lock();
        // What is as it is with everybody is not remembered: there are names without end.
        if let Some(one) = known.remove(relay)
            && !one.offset.is_none()
        {
            known.insert(relay.clone(), Known { offset: one.offset, ..Known::default() });
        }
    }

    /// The relay is left alone for a while; for how long it has been silent.
    fn rest(&self, relay: &Peer, error: &CallError, outbox: &Outbox) -> Duration {
        let (now, random) = (outbox.site.clock.now(), outbox.site.dice.fraction());
        let interval = outbox.settings.current().audit_interval;
        let mut all = self.lock();
        let known = all.entry(relay.clone()).or_default();
        known.failures = known.failures.saturating_add(1);
        // What answers in the place of a relay that is away may say 404 as well: only the relay's own word counts for long.
        let wait = if matches!(error, CallError::Unknown) {
            UNKNOWN_REST
        } else {
            backoff(known.failures, RETRY_FIRST.min(interval), interval, random)
        };
        known.rests_until = Some(now.after(wait));
        tracing::debug!(relay = %relay.name, %error, "the relay was asked in vain what became of mail");
        if error.is_perhaps_unknown() {
            // Relays without the question answer so for ever, and hold what they took.
            known.failing_since = None;
        }
        let since = *known.failing_since.get_or_insert(now);
        // Relays of destinations for which nothing is left are forgotten when they have rested.
        if all.len() > REMEMBERED_MAX {
            all.retain(|_, known| known.rests_until.is_some_and(|until| until > now));
        }
        now.since(since)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Peer, Known>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
