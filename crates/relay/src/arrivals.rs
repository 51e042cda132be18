//! Wakes the collects that wait for mail.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use restante_federation::Caller;
use restante_federation_proto::ServerName;
use tokio::sync::Notify;

use crate::callers::CameFrom;

/// Who waits for whose mail.
#[derive(Default)]
pub(crate) struct Arrivals(Mutex<Waiting>);

/// How many collects may wait at once; one more is answered at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WaitingLimits {
    pub(crate) in_all: usize,
    pub(crate) per_mailbox: usize,
    pub(crate) per_address: usize,
}

#[derive(Default)]
struct Waiting {
    total: usize,
    by_recipient: HashMap<ServerName, Waiters>,
    by_address: HashMap<Caller, usize>,
}

struct Waiters {
    count: usize,
    arrived: Arc<Notify>,
}

/// A place among those who wait; given up when dropped.
pub(crate) struct Place<'a> {
    arrivals: &'a Arrivals,
    recipient: ServerName,
    from: CameFrom,
    arrived: Arc<Notify>,
}

impl Arrivals {
    /// Takes a place; `None` when all are taken.
    pub(crate) fn wait_for(
        &self,
        recipient: &ServerName,
        from: CameFrom,
        limits: WaitingLimits,
    ) -> Option<Place<'_>> {
        let mut waiting = self.lock();
        let here = waiting.by_recipient.get(recipient).map_or(0, |waiters| waiters.count);
        let there = from.0.and_then(|caller| waiting.by_address.get(&caller)).map_or(0, |n| *n);
        if waiting.total >= limits.in_all
            || here >= limits.per_mailbox
            || there >= limits.per_address
        {
            return None;
        }
        if let Some(caller) = from.0 {
            *waiting.by_address.entry(caller).or_default() += 1;
        }
        waiting.total += 1;
        let fresh = || Waiters { count: 0, arrived: Arc::new(Notify::new()) };
        let waiters = waiting.by_recipient.entry(recipient.clone()).or_insert_with(fresh);
        waiters.count += 1;
        let arrived = waiters.arrived.clone();
        Some(Place { arrivals: self, recipient: recipient.clone(), from, arrived })
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().total
    }

    /// Mail arrived for `recipient`.
    pub(crate) fn announce(&self, recipient: &ServerName) {
        if let Some(waiters) = self.lock().by_recipient.get(recipient) {
            waiters.arrived.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Counters stay true even if a holder panicked: each change is one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place<'_> {
    /// What wakes this place. Enable it before looking into the mailbox, or mail that arrives between the
    /// look and the wait is missed.
    pub(crate) fn arrived(&self) -> &Notify {
        &self.arrived
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.arrivals.lock();
        waiting.total -= 1;
        if let Some(caller) = self.from.0
            && let Entry::Occupied(mut count) = waiting.by_address.entry(caller)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        if let Entry::Occupied(mut waiters) = waiting.by_recipient.entry(self.recipient.clone()) {
            waiters.get_mut().count -= 1;
            if waiters.get().count == 0 {
                waiters.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A place that brings everybody's requests.
    const ANYWHERE: CameFrom = CameFrom(None);

    #[test]
    fn places_are_bounded_and_given_back() {
        let arrivals = Arrivals::default();
        let limits = WaitingLimits { in_all: 2, per_mailbox: 2, per_address: 1 };
        let b: ServerName = "b.example".parse().unwrap();
        let c: ServerName = "c.example".parse().unwrap();
        let first = arrivals.wait_for(&b, ANYWHERE, limits);
        let second = arrivals.wait_for(&c, ANYWHERE, limits);
        assert!(first.is_some() && second.is_some());
        assert!(arrivals.wait_for(&b, ANYWHERE, limits).is_none());
        drop(first);
        assert!(arrivals.wait_for(&b, ANYWHERE, limits).is_some());
        drop(second);
        assert!(arrivals.lock().by_recipient.is_empty(), "nobody waits, nothing is kept");
    }

    #[test]
    fn one_mailbox_does_not_take_the_places_of_all() {
        let arrivals = Arrivals::default();
        let limits = WaitingLimits { in_all: 10, per_mailbox: 2, per_address: 1 };
        let b: ServerName = "b.example".parse().unwrap();
        let c: ServerName = "c.example".parse().unwrap();
        let _taken =
            [arrivals.wait_for(&b, ANYWHERE, limits), arrivals.wait_for(&b, ANYWHERE, limits)];
        assert!(arrivals.wait_for(&b, ANYWHERE, limits).is_none());
        assert!(arrivals.wait_for(&c, ANYWHERE, limits).is_some());
    }

    #[test]
    fn one_address_does_not_take_the_places_of_all() {
        let arrivals = Arrivals::default();
        let limits = WaitingLimits { in_all: 10, per_mailbox: 10, per_address: 2 };
        let from =
            |address: &str| CameFrom(Some(address.parse::<std::net::IpAddr>().unwrap().into()));
        let name = |number: u8| format!("s{number}.example").parse::<ServerName>().unwrap();
        let (first, second) = (
            arrivals.wait_for(&name(1), from("2001:db8::1"), limits),
            arrivals.wait_for(&name(2), from("2001:db8::2"), limits),
        );
        assert!(first.is_some() && second.is_some());
        assert!(arrivals.wait_for(&name(3), from("2001:db8::3"), limits).is_none());
        assert!(arrivals.wait_for(&name(3), from("203.0.113.9"), limits).is_some());
        drop((first, second));
        assert!(arrivals.wait_for(&name(3), from("2001:db8::3"), limits).is_some());
        assert!(arrivals.lock().by_address.is_empty(), "nobody waits, nothing is kept");
    }

    #[tokio::test]
    async fn mail_wakes_every_collect_of_its_recipient_and_no_other() {
        let arrivals = Arrivals::default();
        let limits = WaitingLimits { in_all: 10, per_mailbox: 10, per_address: 1 };
        let b: ServerName = "b.example".parse().unwrap();
        let c: ServerName = "c.example".parse().unwrap();
        let (one, two, other) = (
            arrivals.wait_for(&b, ANYWHERE, limits).unwrap(),
            arrivals.wait_for(&b, ANYWHERE, limits).unwrap(),
            arrivals.wait_for(&c, ANYWHERE, limits).unwrap(),
        );
        let (mut one, mut two, mut other) = (
            Box::pin(one.arrived().notified()),
            Box::pin(two.arrived().notified()),
            Box::pin(other.arrived().notified()),
        );
        one.as_mut().enable();
        two.as_mut().enable();
        other.as_mut().enable();
        arrivals.announce(&b);
        one.await;
        two.await;
        assert!(futures_util::FutureExt::now_or_never(other.as_mut()).is_none());
    }
}
