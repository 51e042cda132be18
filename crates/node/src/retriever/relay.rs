//! Collects from one relay for as long as it is ours.

use std::time::Duration;

use futures_util::future::{BoxFuture, Either, FutureExt, ready, select};
use restante_federation_proto::Timestamp;
use restante_relay_api::{CollectResponse, Told};
use restante_sqlite::StoreError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::call;
use super::company::Meanwhile;
use super::course::{Ask, Course, Given};
use super::elsewhere::Rest;
use super::relay_txn;
use super::taking::{Taken, take};
use super::turns::Turn;
use super::{OwnRelay, RelayStatus, Retriever};
use crate::backoff::backoff;
use crate::inbox::RelaysWantedListener;
use crate::losses;
use crate::relay_call::{CallError, ClockOffset};

/// The first wait after a failure.
const RETRY_FIRST: Duration = Duration::from_secs(1);

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
pub(super) async fn collect(retriever: &Retriever, relay: &OwnRelay, stop: &CancellationToken) {
    let collecting = async {
        loop {
            collect_batches(retriever, relay).await;
            relay.seat.release();
            let name = &relay.peer.name;
            tracing::info!(relay = %name, "the relay does not know collect; mail is fetched one by one, as from a Dendrite relay");
            relay_txn::collect(retriever, &relay.peer).await;
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
async fn collect_batches(retriever: &Retriever, relay: &OwnRelay) {
    let mut course = Course::new(Instant::now());
    let mut offset = ClockOffset::default();
    let mut failures = 0;
    let mut wanted = retriever.inbox.relays_wanted();
    let mut under_way: Option<BoxFuture<'_, Asked>> = None;
    loop {
        let asked = match under_way.take() {
            Some(next) => acknowledge_beside(retriever, relay, &mut course, (next, offset)).await,
            None => {
                let ask = next_ask(retriever, relay, &mut course, &mut wanted).await;
                let waits = ask.waits;
                tokio::select! {
                    biased;
                    // Somebody waits for what this relay may hold: the long poll is left, and the relay asked for an
                    // answer at once.
                    () = wanted.said(), if waits => continue,
                    asked = put(retriever, relay, ask, offset) => asked,
                }
            }
        };
        offset = asked.offset;
        let pause = match work_off(retriever, relay, &mut course, asked).await {
            Ok(round) => {
                failures = 0;
                under_way = round.under_way;
                round.pause
            }
            Err(RoundError::Call(error)) if error.is_perhaps_unknown() => return,
            Err(error) => {
                relay.seat.release();
                failures += 1;
                failed(retriever, relay, &error, failures)
            }
        };
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// What to ask next. A backlog waits for the relay's turn; meanwhile the relay says what waits, and hears what came from others.
async fn next_ask(
    retriever: &Retriever,
    OwnRelay { seat, .. }: &OwnRelay,
    course: &mut Course,
    wanted: &mut RelaysWantedListener,
) -> Ask {
    loop {
        if !course.has_backlog() {
            seat.release();
        } else if matches!(seat.ask(), Turn::Anothers { .. }) {
            if course.is_unknown() || seat.wait().await == Meanwhile::TellIt {
                return Ask { have: seat.tells().0, ..course.errand() };
            }
            continue;
        }
        let mut ask = mail_ask(retriever, seat, course);
        ask.waits &= !wanted.was_said();
        return ask;
    }
}

/// Asks for mail, unless there is more to tell the relay first than one request holds: it would give what it has yet to hear of.
fn mail_ask(retriever: &Retriever, seat: &super::company::Seat, course: &mut Course) -> Ask {
    let (have, rest) = seat.tells();
    let ask = match rest {
        Rest::More if course.has_backlog() => course.errand(),
        _ => course.next(retriever.settings.current().safety_interval, Instant::now()),
    };
    Ask { have, ..ask }
}

/// The answer that is under way. Meanwhile what is durable is acknowledged by a request of its own: the one for mail is short
/// without, and over a slow line a hundred acknowledgements take longer than the way there and back.
async fn acknowledge_beside(
    retriever: &Retriever,
    relay: &OwnRelay,
    course: &mut Course,
    (next, offset): (BoxFuture<'_, Asked>, ClockOffset),
) -> Asked {
    let errand = course.errand();
    if errand.acknowledge.is_empty() {
        return next.await;
    }
    let (done, next) = beside(put(retriever, relay, errand, offset), next).await;
    // Without an answer they are acknowledged again, and what became of the line shows in the answer that is under way.
    if let Ok(CollectResponse { queued, .. }) = done.answer {
        let given = Given { last: None, envelopes: 0, queued: queued.count, took: done.took };
        course.answered(&done.ask, given);
    }
    next.await
}

/// A request that was answered, or not.
struct Asked {
    ask: Ask,
    asked_at: Timestamp,
    took: Duration,
    /// Of the relay's clock, as it showed.
    offset: ClockOffset,
    answer: Result<CollectResponse, CallError>,
}

/// Puts a question to the relay.
async fn put(retriever: &Retriever, relay: &OwnRelay, ask: Ask, mut offset: ClockOffset) -> Asked {
    let (asked_at, begun) = (retriever.site.clock.now(), Instant::now());
    let answer = ask_relay(retriever, relay, &ask, &mut offset).await;
    Asked { ask, asked_at, took: begun.elapsed(), offset, answer }
}

async fn ask_relay(
    retriever: &Retriever,
    OwnRelay { peer, .. }: &OwnRelay,
    ask: &Ask,
    offset: &mut ClockOffset,
) -> Result<CollectResponse, CallError> {
    let Retriever { site, settings, .. } = retriever;
    let signed_at = offset.apply(site.clock.now());
    match call::collect(site, peer, ask, settings.current().wait, signed_at).await {
        Err(CallError::Clock { theirs }) => {
            *offset = ClockOffset::between(site.clock.now(), theirs);
            tracing::warn!(relay = %peer.name, ?offset, "the relay's clock differs from ours; requests to it are signed by its time");
            let signed_at = offset.apply(site.clock.now());
            call::collect(site, peer, ask, settings.current().wait, signed_at).await
        }
        answer => answer,
    }
}

/// An answer that was worked off.
struct Round<'a> {
    /// How long to pause before the next.
    pause: Duration,
    /// The next request, if it was put meanwhile.
    under_way: Option<BoxFuture<'a, Asked>>,
}

/// Takes in what the relay gave. If there is more, it is asked for meanwhile, so that the line is not idle while this is judged
/// and stored.
async fn work_off<'a>(
    retriever: &'a Retriever,
    relay: &'a OwnRelay,
    course: &mut Course,
    asked: Asked,
) -> Result<Round<'a>, RoundError> {
    let Asked { ask, asked_at, took, offset, answer } = asked;
    let OwnRelay { peer, seat } = relay;
    let response = answer.inspect_err(|_| course.broke_off())?;
    check_order(&ask, &response)?;
    let CollectResponse { envelopes, queued, told } = response;
    let status = RelayStatus {
        last_collect_at: Some(retriever.site.clock.now()),
        last_error: None,
        queued: Some(queued),
        held: told.held,
    };
    retriever.status.answered(&peer.name, status);
    seat.told(&ask.have);
    let last = envelopes.last().map(|envelope| envelope.id);
    let given = Given { last, envelopes: envelopes.len() as u64, queued: queued.count, took };
    let drained = course.answered(&ask, given);
    let goes_on = last.is_some() && course.has_backlog() && seat.ask() == Turn::Yours;
    let next = goes_on.then(|| {
        let ask = Ask { acknowledge: Vec::new(), ..mail_ask(retriever, seat, course) };
        put(retriever, relay, ask, offset).boxed()
    });
    let taking = take(retriever, relay, envelopes);
    let (taken, under_way) = match next {
        Some(next) => {
            let (taken, next) = beside(taking, next).await;
            (taken, Some(next))
        }
        None => (taking.await, None),
    };
    let Taken { durable, is_anything_new } = taken.inspect_err(|_| course.turn_back(&ask))?;
    course.durable(durable);
    if drained {
        retriever.inbox.relay_drained(&peer.name, asked_at);
    }
    if queued.count == 0 {
        retriever.site.relays.emptied(&peer.name, asked_at).await;
    }
    course.heard(keep_losses(retriever, relay, &told).await);
    // A relay that has no more places for those who wait answers at once, and so does one that lies.
    let did_not_wait = ask.waits && last.is_none() && took < NOTHING_BEFORE_SEEN;
    let is_well = is_anything_new || !ask.takes_mail() || (drained && !did_not_wait);
    Ok(Round { pause: if is_well { Duration::ZERO } else { NOTHING_BEFORE_SEEN }, under_way })
}

fn check_order(ask: &Ask, response: &CollectResponse) -> Result<(), RoundError> {
    let envelopes = &response.envelopes;
    let is_in_order = envelopes.is_sorted_by(|one, next| one.id < next.id)
        && envelopes.first().is_none_or(|first| first.id > ask.after);
    if is_in_order { Ok(()) } else { Err(RoundError::OutOfOrder) }
}

/// Ends with `work`; what is under way beside it goes on, and stays under way.
async fn beside<'a, T>(
    work: impl Future<Output = T>,
    under_way: BoxFuture<'a, Asked>,
) -> (T, BoxFuture<'a, Asked>) {
    let work = std::pin::pin!(work);
    match select(under_way, work).await {
        Either::Left((asked, work)) => (work.await, ready(asked).boxed()),
        Either::Right((done, under_way)) => (done, under_way),
    }
}

fn failed(retriever: &Retriever, relay: &OwnRelay, error: &RoundError, failures: u32) -> Duration {
    let relay = &relay.peer.name;
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

/// Keeps what the relay says of losses; up to when the relay may know that it is kept.
async fn keep_losses(retriever: &Retriever, relay: &OwnRelay, told: &Told) -> Option<Timestamp> {
    let until = told.until()?;
    let (site, relay) = (&retriever.site, &relay.peer.name);
    match losses::keep(&site.database, relay, told, site.clock.now()).await {
        Ok(()) => Some(until),
        Err(error) => {
            // The relay tells it again.
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, %relay, "what the relay lost can't be kept now");
            None
        }
    }
}
