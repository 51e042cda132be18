//! Puts what a mailbox's owner never got into the form that collects tell it in.
//!
//! Pure.

use std::collections::BTreeMap;

use restante_federation_proto::Timestamp;
use restante_mailbox::{Hold, Loss, LossKind};
use restante_relay_api::limits::LOSSES_MAX;
use restante_relay_api::{Fullness, Losses, OriginLosses, Told};

/// What is told of `losses`, without those up to `heard_until`, which the owner knows of.
pub(crate) fn told(losses: Vec<Loss>, heard_until: Option<Timestamp>, hold: Hold) -> Told {
    let (mut turned_away, mut expired, mut dropped) = (Vec::new(), Vec::new(), Vec::new());
    for loss in losses.into_iter().filter(|loss| !is_heard(loss, heard_until)) {
        let (list, full) = match loss.kind {
            LossKind::MailboxFull => (&mut turned_away, Some(Fullness::Mailbox)),
            LossKind::ShareFull => (&mut turned_away, Some(Fullness::Share)),
            LossKind::RelayFull => (&mut turned_away, Some(Fullness::Relay)),
            LossKind::Expired => (&mut expired, None),
            LossKind::Dropped => (&mut dropped, None),
        };
        let Loss { origin, count, bytes, since, until, .. } = loss;
        list.push(OriginLosses { origin, full, count, bytes, since, until });
    }
    Told {
        turned_away: bounded(turned_away),
        expired: bounded(expired),
        dropped: bounded(dropped),
        held: hold == Hold::Held,
    }
}

/// Whether any of `losses` is one that the owner has heard of, so that it can be forgotten.
pub(crate) fn any_heard(losses: &[Loss], heard_until: Option<Timestamp>) -> bool {
    losses.iter().any(|loss| is_heard(loss, heard_until))
}

fn is_heard(loss: &Loss, heard_until: Option<Timestamp>) -> bool {
    heard_until.is_some_and(|heard| loss.until <= heard)
}

/// The latest one by one, and the rest as one sum for each reason.
fn bounded(mut losses: Vec<OriginLosses>) -> Losses {
    losses.sort_by_key(|losses| (losses.origin.is_none(), std::cmp::Reverse(losses.until)));
    let named = losses.iter().take_while(|losses| losses.origin.is_some()).count();
    let rest = losses.split_off(named.min(LOSSES_MAX));
    let mut sums = BTreeMap::<Option<Fullness>, OriginLosses>::new();
    for one in rest {
        let sum = sums.entry(one.full).or_insert_with(|| OriginLosses {
            origin: None,
            count: 0,
            bytes: 0,
            ..one.clone()
        });
        sum.count = sum.count.saturating_add(one.count);
        sum.bytes = sum.bytes.saturating_add(one.bytes);
        sum.since = sum.since.min(one.since);
        sum.until = sum.until.max(one.until);
    }
    losses.extend(sums.into_values());
    Losses { origins: losses }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn loss(kind: LossKind, origin: Option<&str>, until: u64) -> Loss {
        let origin = origin.map(|origin| origin.parse().unwrap());
        Loss { kind, origin, count: 2, bytes: 10, since: at(1), until: at(until) }
    }

    #[test]
    fn each_kind_is_told_apart_with_the_bound_that_was_met() {
        let kinds = [
            LossKind::MailboxFull,
            LossKind::ShareFull,
            LossKind::RelayFull,
            LossKind::Expired,
            LossKind::Dropped,
        ];
        let losses = kinds.map(|kind| loss(kind, Some("a.example"), 5)).into();
        let told = told(losses, None, Hold::Held);
        let mut bounds: Vec<_> =
            told.turned_away.origins.iter().map(|losses| losses.full.unwrap()).collect();
        bounds.sort();
        assert_eq!(bounds, [Fullness::Mailbox, Fullness::Share, Fullness::Relay]);
        assert_eq!((told.expired.origins.len(), told.dropped.origins.len()), (1, 1));
        assert!(told.held);
    }

    #[test]
    fn what_the_owner_has_heard_of_is_told_no_more() {
        let losses = vec![
            loss(LossKind::Expired, Some("a.example"), 5),
            loss(LossKind::Expired, Some("b.example"), 6),
        ];
        assert!(any_heard(&losses, Some(at(5))) && !any_heard(&losses, Some(at(4))));
        assert!(!any_heard(&losses, None));
        let told = told(losses, Some(at(5)), Hold::Released);
        let [left] = told.expired.origins.as_slice() else { panic!("{told:?}") };
        assert_eq!((left.until, told.until()), (at(6), Some(at(6))));
    }

    #[test]
    fn many_origins_are_told_as_a_sum_for_each_bound() {
        let many = u64::try_from(LOSSES_MAX).unwrap() + 5;
        let mut losses: Vec<_> = (0..many)
            .map(|n| loss(LossKind::MailboxFull, Some(&format!("s{n}.example")), 100 + n))
            .collect();
        losses.push(loss(LossKind::MailboxFull, None, 99));
        losses.push(loss(LossKind::ShareFull, None, 98));
        let told = told(losses, None, Hold::Released).turned_away.origins;
        assert_eq!(told.len(), LOSSES_MAX + 2);
        assert_eq!(told[0].until, at(100 + many - 1), "the latest is told");
        let sums: Vec<_> = told.iter().filter(|losses| losses.origin.is_none()).collect();
        assert_eq!((sums[0].full, sums[0].count), (Some(Fullness::Mailbox), 12));
        assert_eq!((sums[0].bytes, sums[0].since, sums[0].until), (60, at(1), at(104)));
        assert_eq!((sums[1].full, sums[1].count), (Some(Fullness::Share), 2));
    }
}
