//! Asks relays what became of what they took.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use http::Method;
use restante_federation::{Patience, Peer};
use restante_federation_proto::{RequestTarget, ServerName, Timestamp};
use restante_relay_api::endpoints::LEFT;
use restante_relay_api::limits::LEFT_MAX;
use restante_relay_api::{LeftAnswer, LeftRequest, LeftTransaction, hex};
use restante_sqlite::StoreError;
use tokio::time::sleep;

use super::Outbox;
use super::rule::{Blame, HolderStep, holder_step};
use super::trust::Judgement;
use crate::backoff::backoff;
use crate::relay_call::{Call, CallError, ClockOffset, call};
use crate::store::outbox::audit::{self, Intervals, ToAsk};

/// How long a relay may take: it looks up a few hundred keys.
const PATIENCE: Patience =
    Patience { connect: Duration::from_secs(10), answer: Duration::from_secs(20) };

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

/// What is remembered of relays while the node runs.
#[derive(Default)]
struct Memory {
    /// Relays that did not answer, or know no such question: failures, and until when they are left alone.
    resting: HashMap<ServerName, (u32, Timestamp)>,
    offsets: HashMap<ServerName, ClockOffset>,
}

pub(super) async fn run(outbox: &Outbox) {
    let mut memory = Memory::default();
    loop {
        let wait = match outbox.round(&mut memory).await {
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
    async fn round(&self, memory: &mut Memory) -> Result<Option<Timestamp>, StoreError> {
        let settings = self.settings.current();
        // Not all nodes that left mail at one time ask at one time.
        let then = settings.audit_interval.mul_f64(0.8 + 0.2 * self.site.dice.fraction());
        let intervals = Intervals { first: settings.audit_after, then };
        let relays = audit::relays(&self.site.database, intervals).await?;
        memory.retain(&relays);
        let mut next = None;
        for (relay, due_at) in relays {
            let now = self.site.clock.now();
            let rests_until = memory.resting.get(&relay).map(|(_, until)| *until);
            let at = rests_until.map_or(due_at, |until| until.max(due_at));
            if at > now {
                next = Some(next.map_or(at, |next: Timestamp| next.min(at)));
            } else {
                self.audit(&relay, memory).await?;
            }
        }
        Ok(next)
    }

    /// Asks one relay about all that it was not asked about since the interval, and about everything as soon as it does not
    /// know something.
    async fn audit(&self, relay: &ServerName, memory: &mut Memory) -> Result<(), StoreError> {
        let settings = self.settings.current();
        let begun = self.site.clock.now();
        let mut asked_since = begun.before(settings.audit_interval.mul_f64(0.8));
        loop {
            let page = audit::to_ask(&self.site.database, relay.clone(), asked_since, LEFT_MAX);
            let page = page.await?;
            if page.is_empty() {
                memory.resting.remove(relay);
                return Ok(());
            }
            for (peer, asked) in self.by_place(relay, page).await {
                let Some(peer) = peer else {
                    self.enter(relay, asked.into_iter().map(unasked).collect()).await?;
                    continue;
                };
                match self.ask(&peer, &asked, memory).await {
                    Ok(answers) => {
                        if self.enter(relay, answers).await? {
                            asked_since = begun;
                        }
                    }
                    Err(error) => {
                        memory.rest(relay, &error, self);
                        return Ok(());
                    }
                }
            }
        }
    }

    /// The transactions by where the relay of that name is for their destination: a record may borrow a name. Where it is no
    /// longer known as a relay, there is nobody to ask.
    async fn by_place(
        &self,
        relay: &ServerName,
        page: Vec<ToAsk>,
    ) -> Vec<(Option<Peer>, Vec<ToAsk>)> {
        let mut peers: BTreeMap<ServerName, Option<Peer>> = BTreeMap::new();
        let mut places: Vec<(Option<Peer>, Vec<ToAsk>)> = Vec::new();
        for asked in page {
            let destination = &asked.destination;
            if !peers.contains_key(destination) {
                let holding = self.site.relays.holding(destination).await.unwrap_or_default();
                // What was left to be delivered onward lies with a relay of our own.
                let known = holding.into_iter().chain(self.site.relays.outgoing());
                let peer = known.into_iter().find(|peer| peer.name == *relay);
                peers.insert(destination.clone(), peer);
            }
            let peer = peers.get(destination).cloned().flatten();
            match places.iter_mut().find(|(there, _)| *there == peer) {
                Some((_, all)) => all.push(asked),
                None => places.push((peer, vec![asked])),
            }
        }
        places
    }

    async fn ask(
        &self,
        relay: &Peer,
        asked: &[ToAsk],
        memory: &mut Memory,
    ) -> Result<Vec<(ToAsk, HolderStep)>, CallError> {
        let answer = match self.call(relay, asked, memory).await {
            Err(CallError::Clock { theirs }) => {
                let offset = ClockOffset::between(self.site.clock.now(), theirs);
                memory.offsets.insert(relay.name.clone(), offset);
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
            let step = holder_step(state, asked.since, asked.expires_at, now);
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
        let offset = memory.offsets.get(&relay.name).copied().unwrap_or_default();
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
        let target: RequestTarget = LEFT.parse().expect("the path is printable ASCII");
        let call_ = Call {
            method: Method::POST,
            target: &target,
            body: Some(request.to_canonical_json().into()),
            patience: PATIENCE,
            answer_bytes_max: ANSWER_BYTES_MAX,
        };
        call(&self.site, relay, call_).await
    }

    /// Enters what the relay said; whether it lost something that it should have.
    async fn enter(
        &self,
        relay: &ServerName,
        answers: Vec<(ToAsk, HolderStep)>,
    ) -> Result<bool, StoreError> {
        let lost = answers.iter().filter(|(_, step)| matches!(step, HolderStep::Lost(_))).count();
        let is_blamed = answers.iter().any(|(_, step)| *step == HolderStep::Lost(Blame::Relays));
        let (asked, now) = (answers.len(), self.site.clock.now());
        let worst = audit::answered(&self.site.database, relay.clone(), answers, now).await?;
        if lost > 0 {
            tracing::warn!(%relay, lost, asked, "the relay knows nothing of mail that it took; it is sent or left again");
            self.site.bells.copies.notify_one();
        }
        if let Some((Judgement::Distrusted, destination)) = worst {
            tracing::error!(%relay, %destination, "the relay lost mail again and again: its word does not count as sent for this destination until mail arrives through it; ask its operator, or leave mail elsewhere with `restante relays add`");
        }
        Ok(is_blamed)
    }
}

/// There is nobody to ask: as if it had not answered.
fn unasked(asked: ToAsk) -> (ToAsk, HolderStep) {
    (asked, HolderStep::AskAgain)
}

impl Memory {
    fn rest(&mut self, relay: &ServerName, error: &CallError, outbox: &Outbox) {
        let (now, site) = (outbox.site.clock.now(), &outbox.site);
        let interval = outbox.settings.current().audit_interval;
        let (failures, until) = self.resting.entry(relay.clone()).or_insert((0, now));
        *failures += 1;
        // What answers in the place of a relay that is away may say 404 as well: only the relay's own word counts for long.
        let wait = if matches!(error, CallError::Unknown) {
            UNKNOWN_REST
        } else {
            backoff(*failures, RETRY_FIRST.min(interval), interval, site.dice.fraction())
        };
        *until = now.after(wait);
        tracing::debug!(%relay, %error, "the relay was asked in vain what became of mail");
    }

    /// Forgets relays that hold nothing.
    fn retain(&mut self, relays: &[(ServerName, Timestamp)]) {
        let holds = |relay: &ServerName| relays.iter().any(|(name, _)| name == relay);
        self.resting.retain(|relay, _| holds(relay));
        self.offsets.retain(|relay, _| holds(relay));
    }
}
