//! The questions to one relay that are under way: two at most, so that over a slow line one answer follows the other without a
//! pause.
//!
//! The head of an answer announces where it ends, so that the next question can be put while its body is on its way: when half of it
//! has come, so that the two don't end together, which would leave the line idle then. That is the relay's word: what was asked for
//! behind an end that turns out to be another is thrown away.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, FutureExt as _};

use super::course::Ask;

/// Answers that are under way or in memory at once, with the one that is worked off.
const FLIGHTS_MAX: usize = 2;

/// The id of the last envelope of an answer of which half has come, if more waits behind it.
#[derive(Debug, Clone, Default)]
pub(super) struct Announced(Arc<OnceLock<u64>>);

impl Announced {
    /// Half of it has come.
    pub(super) fn end(&self, last: u64) {
        // It is told once.
        let _ = self.0.set(last);
    }
}

/// Questions in the order in which they were put.
pub(super) struct Flights<'a, T> {
    flights: VecDeque<Flight<'a, T>>,
}

struct Flight<'a, T> {
    after: u64,
    /// Whether it asks for mail that is there: only that has a next part.
    takes_a_part: bool,
    announced: Announced,
    is_looked_at: bool,
    state: State<'a, T>,
}

enum State<'a, T> {
    UnderWay(BoxFuture<'a, T>),
    Answered(T),
}

/// What happens first.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event<T> {
    /// The first question is answered.
    Answered(T),
    /// Its answer ends at this id, and nothing behind it is asked for yet.
    Announced(u64),
}

impl<T> Default for Flights<'_, T> {
    fn default() -> Self {
        Self { flights: VecDeque::new() }
    }
}

impl<'a, T> Flights<'a, T> {
    /// Puts a question, which is under way as soon as anything here is waited for.
    pub(super) fn put(&mut self, ask: &Ask, announced: Announced, answer: BoxFuture<'a, T>) {
        let takes_a_part = ask.takes_mail() && !ask.waits;
        let state = State::UnderWay(answer);
        let flight =
            Flight { after: ask.after, takes_a_part, announced, is_looked_at: false, state };
        self.flights.push_back(flight);
    }

    /// Whether nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// Lets go of all.
    pub(super) fn clear(&mut self) {
        self.flights.clear();
    }

    /// The last answer really ended at `last`: what was asked for behind that stays under way, and nothing else; whether anything
    /// does.
    pub(super) fn go_on_after(&mut self, last: Option<u64>) -> bool {
        self.flights.retain(|flight| Some(flight.after) == last);
        !self.flights.is_empty()
    }

    /// Where the answer under way ends, if that is news, and there is room for another.
    pub(super) fn announced(&mut self) -> Option<u64> {
        if self.flights.len() + 1 > FLIGHTS_MAX {
            return None;
        }
        let flight = self.flights.front_mut()?;
        let last = *flight.announced.0.get()?;
        let is_news = flight.takes_a_part && !flight.is_looked_at && last > flight.after;
        flight.is_looked_at = true;
        is_news.then_some(last)
    }

    /// What happens next with the first question; pending for ever without one.
    pub(super) async fn next(&mut self) -> Event<T> {
        poll_fn(|context| {
            self.poll(context);
            if matches!(self.flights.front(), Some(Flight { state: State::Answered(_), .. }))
                && let Some(Flight { state: State::Answered(answer), .. }) =
                    self.flights.pop_front()
            {
                return Poll::Ready(Event::Answered(answer));
            }
            self.announced().map_or(Poll::Pending, |last| Poll::Ready(Event::Announced(last)))
        })
        .await
    }

    /// Does `work` while what is under way goes on.
    pub(super) async fn beside<W>(&mut self, work: impl Future<Output = W>) -> W {
        let mut work = std::pin::pin!(work);
        poll_fn(|context| {
            self.poll(context);
            work.as_mut().poll(context)
        })
        .await
    }

    fn poll(&mut self, context: &mut Context<'_>) {
        for flight in &mut self.flights {
            if let State::UnderWay(answer) = &mut flight.state
                && let Poll::Ready(answer) = answer.poll_unpin(context)
            {
                flight.state = State::Answered(answer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::retriever::course::Course;

    const SECOND: Duration = Duration::from_secs(1);

    fn part(after: u64) -> Ask {
        Course::new(Instant::now()).ahead(after)
    }

    /// Puts a question whose answer announces its end after one second and is there after two.
    fn put(flights: &mut Flights<'_, u64>, after: u64, last: u64) {
        let announced = Announced::default();
        let note = announced.clone();
        let answer = async move {
            sleep(SECOND).await;
            note.end(last);
            sleep(SECOND).await;
            last
        };
        flights.put(&part(after), announced, answer.boxed());
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_part_is_under_way_before_the_first_has_come_and_no_third() {
        let (mut flights, begun) = (Flights::default(), Instant::now());
        put(&mut flights, 0, 10);
        assert_eq!(flights.next().await, Event::Announced(10));
        assert_eq!(begun.elapsed(), SECOND);
        put(&mut flights, 10, 20);
        assert_eq!(flights.next().await, Event::Answered(10));
        assert!(flights.go_on_after(Some(10)));
        assert_eq!(begun.elapsed(), 2 * SECOND);
        // What is worked off meanwhile holds nothing up.
        flights.beside(sleep(SECOND / 2)).await;
        assert_eq!(flights.next().await, Event::Announced(20));
        assert_eq!(flights.next().await, Event::Answered(20));
        assert_eq!(begun.elapsed(), 3 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_asked_for_behind_a_false_end_is_thrown_away() {
        let mut flights = Flights::default();
        put(&mut flights, 0, 10);
        assert_eq!(flights.next().await, Event::Announced(10));
        put(&mut flights, 10, 20);
        assert_eq!(flights.next().await, Event::Answered(10));
        assert!(!flights.go_on_after(Some(7)));
        assert!(flights.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_before_the_beginning_is_not_listened_to() {
        let mut flights = Flights::default();
        put(&mut flights, 10, 10);
        assert_eq!(flights.next().await, Event::Answered(10));
    }
}
