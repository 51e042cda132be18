//! Collects from one relay for as long as it is ours.

use std::time::Duration;

use futures_util::future::FutureExt;
use restante_federation_proto::Timestamp;
use restante_relay_api::{CollectResponse, Told};
use restante_sqlite::StoreError;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::call;
use super::company::Meanwhile;
use super::course::{Ask, Course, Given};
use super::elsewhere::Rest;
use super::flights::{Announced, Event, Flights};
use super::relay_txn;
use super::taking::{Taken, take};
use super::turns::Turn;
use super::{OwnRelay, RelayStatus, Retriever};
use crate::backoff::backoff;
use crate::comeback::Comeback;
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
    /// The relay gave more than was asked for.
    #[error("the relay gave more envelopes than were asked for")]
    TooMany,
}

/// Collects from `relay` until `stop`.
pub(super) async fn collect(retriever: &Retriever, relay: &OwnRelay, stop: &CancellationToken) {
    // What is cut off here was either not stored, and stays at the relay, or stored, and is a duplicate next time.
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = collect_awake(retriever, relay) => {}
    }
}

/// Begins anew whenever the machine has slept: what is under way then is on a connection that leads nowhere, and what
/// failed before tells nothing of the relay.
async fn collect_awake(retriever: &Retriever, relay: &OwnRelay) {
    let mut comebacks = retriever.status.comebacks().watch();
    loop {
        tokio::select! {
            biased;
            () = slept(&mut comebacks) => relay.seat.release(),
            () = collect_either_way(retriever, relay) => {}
        }
    }
}

async fn slept(comebacks: &mut watch::Receiver<Comeback>) {
    while comebacks.changed().await.is_ok() {
        if *comebacks.borrow_and_update() == Comeback::Slept {
            return;
        }
    }
    std::future::pending().await
}

async fn collect_either_way(retriever: &Retriever, relay: &OwnRelay) {
    collect_batches(retriever, relay).await;
    relay.seat.release();
    let name = &relay.peer.name;
    tracing::info!(relay = %name, "the relay does not know collect; mail is fetched one by one, as from a Dendrite relay");
    relay_txn::collect(retriever, &relay.peer).await;
}

/// Collects for as long as the relay knows `collect`.
async fn collect_batches(retriever: &Retriever, relay: &OwnRelay) {
    let mut course = Course::new(Instant::now());
    let mut offset = ClockOffset::default();
    let mut failures = 0;
    let mut wanted = retriever.inbox.relays_wanted();
    let mut flights = Flights::default();
    loop {
        let mut waits = false;
        if flights.is_empty() {
            let ask = next_ask(retriever, relay, &mut course, &mut wanted).await;
            waits = ask.waits;
            put(&mut flights, (retriever, relay), ask, offset);
        } else {
            look_ahead(&mut flights, (retriever, relay), &course, offset);
            acknowledge_beside(&mut flights, (retriever, relay), &mut course, offset).await;
        }
        let asked = tokio::select! {
            biased;
            // Somebody waits for what this relay may hold: the long poll is left, and the relay asked for an answer at once.
            () = wanted.said(), if waits => {
                flights.clear();
                continue;
            }
            asked = answered(&mut flights, (retriever, relay), &course, offset) => asked,
        };
        offset = asked.offset;
        let pause = match work_off(&mut flights, (retriever, relay), &mut course, asked).await {
            Ok(pause) => {
                failures = 0;
                pause
            }
            Err(RoundError::Call(error)) if error.is_perhaps_unknown() => return,
            Err(error) => {
                // What comes behind mail that is asked for again comes again as well.
                flights.clear();
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

/// The answer to the first question that is under way. As soon as it shows where it ends, the next part is asked for.
async fn answered<'a>(
    flights: &mut Flights<'a, Asked>,
    of: Of<'a>,
    course: &Course,
    offset: ClockOffset,
) -> Asked {
    loop {
        match flights.next().await {
            Event::Answered(asked) => return asked,
            Event::Announced(last) => ask_behind(flights, of, course, (last, offset)),
        }
    }
}

/// Asks for the next part, if the answer under way has shown where it ends.
fn look_ahead<'a>(
    flights: &mut Flights<'a, Asked>,
    of: Of<'a>,
    course: &Course,
    offset: ClockOffset,
) {
    if let Some(last) = flights.announced() {
        ask_behind(flights, of, course, (last, offset));
    }
}

/// Asks for what is behind `last`, unless it is another relay's turn, or this one has to hear first what is here already.
fn ask_behind<'a>(
    flights: &mut Flights<'a, Asked>,
    of: Of<'a>,
    course: &Course,
    (last, offset): (u64, ClockOffset),
) {
    let (_, OwnRelay { seat, .. }) = of;
    if course.is_laden() || seat.ask() != Turn::Yours {
        return;
    }
    let (have, rest) = seat.tells();
    if rest == Rest::Nothing {
        put(flights, of, Ask { have, ..course.ahead(last) }, offset);
    }
}

/// Acknowledges what is durable by a request of its own, beside those that are under way: they are short without, and over a slow
/// line a hundred acknowledgements take longer than the way there and back.
async fn acknowledge_beside<'a>(
    flights: &mut Flights<'a, Asked>,
    (retriever, relay): Of<'a>,
    course: &mut Course,
    offset: ClockOffset,
) {
    let errand = course.errand();
    if errand.acknowledge.is_empty() {
        return;
    }
    let asking = ask(retriever, relay, errand, offset, Announced::default());
    let done = flights.beside(asking).await;
    // Without an answer they are acknowledged again, and what became of the line shows in the answer that is under way.
    if let Ok(CollectResponse { queued, .. }) = done.answer {
        let given = Given { last: None, envelopes: 0, queued: queued.count, took: done.took };
        course.answered(&done.ask, given);
    }
}

/// Who asks which relay.
type Of<'a> = (&'a Retriever, &'a OwnRelay);

/// A request that was answered, or not.
struct Asked {
    ask: Ask,
    asked_at: Timestamp,
    took: Duration,
    /// Of the relay's clock, as it showed.
    offset: ClockOffset,
    answer: Result<CollectResponse, CallError>,
}

/// Puts a question to the relay behind those that are under way.
fn put<'a>(
    flights: &mut Flights<'a, Asked>,
    (retriever, relay): Of<'a>,
    question: Ask,
    offset: ClockOffset,
) {
    let announced = Announced::default();
    let part = question.clone();
    let asking = ask(retriever, relay, question, offset, announced.clone());
    flights.put(&part, announced, asking.boxed());
}

async fn ask(
    retriever: &Retriever,
    relay: &OwnRelay,
    ask: Ask,
    mut offset: ClockOffset,
    announced: Announced,
) -> Asked {
    let (asked_at, begun) = (retriever.site.clock.now(), Instant::now());
    let answer = ask_relay(retriever, relay, &ask, &mut offset, &announced).await;
    Asked { ask, asked_at, took: begun.elapsed(), offset, answer }
}

async fn ask_relay(
    retriever: &Retriever,
    OwnRelay { peer, .. }: &OwnRelay,
    ask: &Ask,
    offset: &mut ClockOffset,
    announced: &Announced,
) -> Result<CollectResponse, CallError> {
    let Retriever { site, settings, .. } = retriever;
    let signed_at = offset.apply(site.clock.now());
    match call::collect(site, peer, ask, settings.current().wait, signed_at, announced).await {
        Err(CallError::Clock { theirs }) => {
            *offset = ClockOffset::between(site.clock.now(), theirs);
            tracing::warn!(relay = %peer.name, ?offset, "the relay's clock differs from ours; requests to it are signed by its time");
            let signed_at = offset.apply(site.clock.now());
            call::collect(site, peer, ask, settings.current().wait, signed_at, announced).await
        }
        answer => answer,
    }
}

/// Takes in what the relay gave; how long to pause then. If there is more, it is asked for meanwhile, unless it is already, so that
/// the line is not idle while this is judged and stored.
async fn work_off<'a>(
    flights: &mut Flights<'a, Asked>,
    (retriever, relay): Of<'a>,
    course: &mut Course,
    asked: Asked,
) -> Result<Duration, RoundError> {
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
    if !flights.go_on_after(last)
        && last.is_some()
        && course.has_backlog()
        && !course.is_laden()
        && seat.ask() == Turn::Yours
    {
        let ask = Ask { acknowledge: Vec::new(), ..mail_ask(retriever, seat, course) };
        put(flights, (retriever, relay), ask, offset);
    }
    let taken = flights.beside(take(retriever, relay, envelopes)).await;
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
    Ok(if is_well { Duration::ZERO } else { NOTHING_BEFORE_SEEN })
}

fn check_order(ask: &Ask, response: &CollectResponse) -> Result<(), RoundError> {
    let envelopes = &response.envelopes;
    let is_in_order = envelopes.is_sorted_by(|one, next| one.id < next.id)
        && envelopes.first().is_none_or(|first| first.id > ask.after);
    if !is_in_order {
        return Err(RoundError::OutOfOrder);
    }
    if envelopes.len() as u64 > ask.envelopes_max { Err(RoundError::TooMany) } else { Ok(()) }
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
