//! Decides whether a caller comes too often, with a memory that never outgrows its limit.
//!
//! The rule is the generic cell rate algorithm: of each caller only the moment is remembered up to which its requests
//! have used up its time. [`next`] is the whole of it, and pure.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use restante_federation::BoundedMap;
use tokio::time::Instant;

/// Callers that are remembered; each takes some hundred bytes. Who was not seen for longest is forgotten, and may begin
/// anew: whoever has more addresses than this is not bounded by address anyway.
const CALLERS_MAX: usize = 65_536;

/// So many in each period, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) number: NonZeroU32,
    pub(crate) period: Duration,
    pub(crate) burst: NonZeroU32,
}

/// It is too soon; when it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooSoon {
    pub(crate) retry_after: Duration,
}

/// The rates of callers of one kind.
pub(crate) struct Rates<K> {
    begun: Instant,
    used: Mutex<BoundedMap<K, Duration>>,
}

impl<K: Hash + Eq + Clone> Rates<K> {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), used: Mutex::new(BoundedMap::new(CALLERS_MAX)) }
    }

    /// Counts one request of `caller`, at the rate that holds at present.
    pub(crate) fn admit(&self, caller: &K, rate: Rate) -> Result<(), TooSoon> {
        let now = self.begun.elapsed();
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let used_up = next(used.get(caller).copied(), rate, now)?;
        used.insert(caller.clone(), used_up);
        Ok(())
    }
}

/// Up to when a caller's time is used up after one more request at `now`, if it may make one. A request that is refused
/// uses nothing.
fn next(used_up: Option<Duration>, rate: Rate, now: Duration) -> Result<Duration, TooSoon> {
    // An interval of nothing would leave no time ahead for a burst.
    let each = (rate.period / rate.number.get()).max(Duration::from_nanos(1));
    let used_up = used_up.unwrap_or_default().max(now) + each;
    let ahead_max = each.saturating_mul(rate.burst.get());
    match used_up.checked_sub(now + ahead_max) {
        None | Some(Duration::ZERO) => Ok(used_up),
        Some(retry_after) => Err(TooSoon { retry_after }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(number: u32, burst: u32) -> Rate {
        let at_least_one = |number| NonZeroU32::new(number).unwrap();
        Rate {
            number: at_least_one(number),
            period: Duration::from_secs(1),
            burst: at_least_one(burst),
        }
    }

    fn admitted(rates: &Rates<&str>, caller: &'static str, rate: Rate, tries: u32) -> u32 {
        (0..tries).map(|_| u32::from(rates.admit(&caller, rate).is_ok())).sum()
    }

    #[test]
    fn the_highest_rate_refuses_nobody_for_its_interval_is_too_short_to_tell() {
        let rate = rate(u32::MAX, 10);
        let now = Duration::from_secs(1);
        let used_up = next(None, rate, now).unwrap();
        assert!(next(Some(used_up), rate, now).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_taken_and_then_the_rate() {
        let (rates, rate) = (Rates::new(), rate(10, 5));
        assert_eq!(admitted(&rates, "a", rate, 100), 5);
        let tenth = Duration::from_millis(100);
        assert_eq!(rates.admit(&"a", rate), Err(TooSoon { retry_after: tenth }));
        tokio::time::advance(tenth).await;
        assert_eq!(admitted(&rates, "a", rate, 100), 1);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(admitted(&rates, "a", rate, 100), 5, "a pause saves up no more than a burst");
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_caller_does_costs_another_nothing() {
        let (rates, rate) = (Rates::new(), rate(10, 5));
        admitted(&rates, "a", rate, 1000);
        assert_eq!(admitted(&rates, "b", rate, 100), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_higher_rate_holds_at_once() {
        let rates = Rates::new();
        assert_eq!(admitted(&rates, "a", rate(1, 1), 10), 1);
        assert!(admitted(&rates, "a", rate(100, 500), 1000) >= 400);
    }

    #[tokio::test(start_paused = true)]
    async fn any_number_of_callers_takes_bounded_memory() {
        let (rates, rate) = (Rates::new(), rate(1, 1));
        for caller in 0..2 * CALLERS_MAX {
            rates.admit(&caller, rate).unwrap();
        }
        assert!(rates.admit(&(2 * CALLERS_MAX - 1), rate).is_err(), "the last one is remembered");
        rates.admit(&0, rate).unwrap();
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_the_burst_and_the_rate(
            number in 1_u32..1000, burst in 1_u32..1000, pauses in prop::collection::vec(0_u64..100, 1..300)
        ) {
            let rate = rate(number, burst);
            let (mut now, mut used_up, mut taken) = (Duration::ZERO, None, 0_f64);
            for pause in pauses {
                now += Duration::from_millis(pause);
                match next(used_up, rate, now) {
                    Ok(next) => { used_up = Some(next); taken += 1.0; }
                    Err(TooSoon { retry_after }) => {
                        // When it says so, it is true.
                        prop_assert!(next(used_up, rate, now + retry_after).is_ok());
                    }
                }
                let most = f64::from(burst) + now.as_secs_f64() * f64::from(number);
                prop_assert!(taken <= most + 1e-3, "{taken} > {most}");
            }
        }
    }
}
