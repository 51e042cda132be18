//! Collects from one relay for as long as it is ours.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use restante_federation::Peer;
use restante_federation_proto::{ServerName, Timestamp};
use restante_relay_api::{
    CollectAcknowledgement, CollectResponse, RequestId, Told, WireEnvelope, hex,
};
use restante_sqlite::StoreError;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::call;
use super::course::{Ask, Batch, Course};
use super::relay_txn;
use super::{RelayStatus, Retriever};
use crate::backoff::backoff;
use crate::inbox::Arrival;
use crate::inbox::mail::Mail;
use crate::inbox::verification::{ARRIVAL_KEY_WAIT, Incoming, judge};
use crate::losses;
use crate::relay_call::{CallError, ClockOffset};

/// The first wait after a failure.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// Envelopes of one origin that are judged at once; all origins of an answer are.
const JUDGED_AT_ONCE: usize = 8;

/// How often what is judged is stored while the rest of an answer is not: a durable write for each would be slow.
const STORED_EVERY: Duration = Duration::from_millis(500);

/// Between answers that hold nothing that was not there before: a relay that forgets acknowledgements, or makes
/// entries up, takes no more than this.
pub(super) const NOTHING_BEFORE_SEEN: Duration = Duration::from_secs(1);

/// Why a round with a relay failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RoundError {
    /// The relay.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The inbox: what was given stays at the relay.
    #[error("the inbox can't take mail now: {0}")]
    Inbox(#[from] StoreError),
    /// The relay gave what was not asked for.
    #[error("the relay gave entries that were not asked for")]
    OutOfOrder,
}

/// Collects from `relay` until `stop`.
pub(super) async fn collect(retriever: Retriever, relay: Peer, stop: CancellationToken) {
    let collecting = async {
        loop {
            collect_batches(&retriever, &relay).await;
            tracing::info!(relay = %relay.name, "the relay does not know collect; mail is fetched one by one, as from a Dendrite relay");
            relay_txn::collect(&retriever, &relay).await;
        }
    };
    // What is cut off here was either not stored, and stays at the relay, or stored, and is a duplicate next time.
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = collecting => {}
    }
}

/// Collects for as long as the relay knows `collect`.
async fn collect_batches(retriever: &Retriever, relay: &Peer) {
    let mut course = Course::new(Instant::now());
    let mut offset = ClockOffset::default();
    let mut failures = 0;
    let mut wanted = retriever.inbox.relays_wanted();
    loop {
        let mut ask = course.next(retriever.settings.current().safety_interval, Instant::now());
        if wanted.was_said() {
            ask.waits = false;
        }
        let round = tokio::select! {
            biased;
            // Somebody waits for what this relay may hold: the long poll is left, and the relay asked for an answer at once.
            () = wanted.said(), if ask.waits => Ok(Duration::ZERO),
            round = round(retriever, relay, &mut course, &ask, &mut offset) => round,
        };
        let pause = match round {
            Ok(pause) => {
                failures = 0;
                pause
            }
            Err(RoundError::Call(error)) if error.is_perhaps_unknown() => return,
            Err(error) => {
                failures += 1;
                failed(retriever, relay, &error, failures)
            }
        };
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

fn failed(retriever: &Retriever, relay: &Peer, error: &RoundError, failures: u32) -> Duration {
    let relay = &relay.name;
    let max = retriever.settings.current().safety_interval;
    let wait = backoff(failures, RETRY_FIRST.min(max), max, retriever.site.dice.fraction());
    let asked = match error {
        RoundError::Call(CallError::Refused { retry_after, .. }) => retry_after.unwrap_or_default(),
        _ => Duration::ZERO,
    };
    let text = chain(error);
    tracing::warn!(%relay, failures, "collecting failed and is tried again: {text}");
    match error {
        RoundError::Call(CallError::Exchange(_) | CallError::Broken(_)) => {
            retriever.status.unreached(relay, &text);
        }
        // Whoever refuses shows that we are connected.
        _ => retriever.status.failed(relay, &text),
    }
    wait.max(asked.min(max))
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}

/// Asks once, and works the answer off; how long to pause then.
async fn round(
    retriever: &Retriever,
    relay: &Peer,
    course: &mut Course,
    ask: &Ask,
    offset: &mut ClockOffset,
) -> Result<Duration, RoundError> {
    let (asked_at, begun) = (retriever.site.clock.now(), Instant::now());
    let response = ask_relay(retriever, relay, ask, offset).await?;
    if !response.envelopes.is_sorted_by(|one, next| one.id < next.id)
        || response.envelopes.first().is_some_and(|first| first.id <= ask.after)
    {
        return Err(RoundError::OutOfOrder);
    }
    let now = retriever.site.clock.now();
    let (queued, told) = (response.queued, response.told);
    let status = RelayStatus {
        last_collect_at: Some(now),
        last_error: None,
        queued: Some(queued),
        held: told.held,
    };
    retriever.status.answered(&relay.name, status);
    let last = response.envelopes.last().map(|envelope| envelope.id);
    let taken = take(retriever, relay, response.envelopes).await?;
    let drained = course.answered(ask, Batch { last, durable: taken.durable });
    if drained {
        retriever.inbox.relay_drained(&relay.name, asked_at);
    }
    if queued.count == 0 {
        retriever.site.relays.emptied(&relay.name, asked_at).await;
    }
    course.heard(keep_losses(retriever, relay, &told).await);
    // A relay that has no more places for those who wait answers at once, and so does one that lies.
    let did_not_wait = ask.waits && last.is_none() && begun.elapsed() < NOTHING_BEFORE_SEEN;
    let goes_on = taken.is_anything_new || (drained && !did_not_wait);
    Ok(if goes_on { Duration::ZERO } else { NOTHING_BEFORE_SEEN })
}

/// Keeps what the relay says of losses; up to when the relay may know that it is kept.
async fn keep_losses(retriever: &Retriever, relay: &Peer, told: &Told) -> Option<Timestamp> {
    let until = told.until()?;
    let site = &retriever.site;
    match losses::keep(&site.database, &relay.name, told, site.clock.now()).await {
        Ok(()) => Some(until),
        Err(error) => {
            // The relay tells it again.
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, relay = %relay.name, "what the relay lost can't be kept now");
            None
        }
    }
}

async fn ask_relay(
    retriever: &Retriever,
    relay: &Peer,
    ask: &Ask,
    offset: &mut ClockOffset,
) -> Result<CollectResponse, CallError> {
    let Retriever { site, settings, .. } = retriever;
    let signed_at = offset.apply(site.clock.now());
    match call::collect(site, relay, ask, settings.current().wait, signed_at).await {
        Err(CallError::Clock { theirs }) => {
            *offset = ClockOffset::between(site.clock.now(), theirs);
            tracing::warn!(relay = %relay.name, ?offset, "the relay's clock differs from ours; requests to it are signed by its time");
            let signed_at = offset.apply(site.clock.now());
            call::collect(site, relay, ask, settings.current().wait, signed_at).await
        }
        answer => answer,
    }
}

#[derive(Default)]
struct Taken {
    durable: Vec<CollectAcknowledgement>,
    is_anything_new: bool,
}

/// An envelope that was judged, by the relay's id.
struct Judged {
    id: u64,
    mail: Mail,
}

/// Judges and stores a batch; only what is durable may be acknowledged. Each origin's envelopes are stored in their
/// order, and those of an origin whose key is looked for far away do not keep the others from being durable.
async fn take(
    retriever: &Retriever,
    relay: &Peer,
    envelopes: Vec<WireEnvelope>,
) -> Result<Taken, RoundError> {
    let until = Instant::now() + ARRIVAL_KEY_WAIT;
    let judging = by_origin(envelopes).into_values().map(|envelopes| {
        let judging = envelopes.into_iter().map(|envelope| async move {
            let (id, incoming) = incoming(relay, envelope);
            Judged { id, mail: judge(&retriever.site, incoming, until).await }
        });
        stream::iter(judging).buffered(JUDGED_AT_ONCE).boxed()
    });
    let mut judging = stream::select_all(judging);
    let (mut taken, mut judged) = (Taken::default(), Vec::new());
    let mut due = Instant::now() + STORED_EVERY;
    loop {
        let next = timeout_at(due, judging.next()).await;
        if let Ok(Some(next)) = next {
            judged.push(next);
            continue;
        }
        store(retriever, relay, std::mem::take(&mut judged), &mut taken).await?;
        if next.is_ok() {
            return Ok(taken);
        }
        due = Instant::now() + STORED_EVERY;
    }
}

fn by_origin(envelopes: Vec<WireEnvelope>) -> BTreeMap<ServerName, Vec<WireEnvelope>> {
    let mut by_origin: BTreeMap<ServerName, Vec<WireEnvelope>> = BTreeMap::new();
    for envelope in envelopes {
        by_origin.entry(envelope.origin.clone()).or_default().push(envelope);
    }
    by_origin
}

fn incoming(relay: &Peer, envelope: WireEnvelope) -> (u64, Incoming) {
    let incoming = Incoming {
        origin: envelope.origin,
        txn_id: Some(envelope.txn_id),
        content: envelope.content,
        extras: envelope.extras,
        source: relay.name.to_string(),
    };
    (envelope.id, incoming)
}

/// Stores in one durable write.
async fn store(
    retriever: &Retriever,
    relay: &Peer,
    judged: Vec<Judged>,
    taken: &mut Taken,
) -> Result<(), RoundError> {
    if judged.is_empty() {
        return Ok(());
    }
    let ids: Vec<u64> = judged.iter().map(|judged| judged.id).collect();
    // The hash is of what came, and not what the relay says it is.
    let hashes: Vec<String> = judged.iter().map(|judged| hex(&judged.mail.key.sha256)).collect();
    let mails: Vec<Mail> = judged.into_iter().map(|judged| judged.mail).collect();
    let names: Vec<_> =
        mails.iter().map(|mail| (mail.key.clone(), mail.request_id.clone())).collect();
    let arrivals = retriever.inbox.arrive(mails).await?;
    for ((key, id), arrival) in names.iter().zip(&arrivals) {
        if *arrival == Arrival::Stored {
            let (origin, id) = (&key.origin, id.as_ref().map(RequestId::as_str));
            tracing::info!(relay = %relay.name, %origin, txn_id = key.txn_id, delivery.id = id, "collected");
        }
    }
    let full = arrivals.iter().filter(|arrival| **arrival == Arrival::Full).count();
    if full > 0 {
        tracing::warn!(relay = %relay.name, full, "the inbox has no room; this mail stays at the relay");
        let text = format!("the inbox has no room for {full} envelopes; they stay at the relay");
        retriever.status.failed(&relay.name, &text);
    }
    taken.is_anything_new |= arrivals.contains(&Arrival::Stored);
    let durable = ids.into_iter().zip(hashes).zip(arrivals).filter_map(|((id, hash), arrival)| {
        let is_durable = arrival != Arrival::Full;
        is_durable.then_some(CollectAcknowledgement { id, sha256: Some(hash) })
    });
    taken.durable.extend(durable);
    Ok(())
}
