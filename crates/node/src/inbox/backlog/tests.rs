//! The backlog's rules, and what they come to in arbitrary rooms with arbitrary arrivals and outages.

use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn held(id: i64, prev: &[&str]) -> Held {
    Held {
        id,
        event_id: format!("${id}"),
        origin: "a.test".parse().unwrap(),
        is_proven: true,
        prev_events: prev.iter().map(|id| (*id).to_owned()).collect(),
        sender: None,
        is_acl: false,
        attempts: 0,
        due_at: at(0),
    }
}

fn ids(chosen: Vec<&Held>) -> Vec<i64> {
    chosen.into_iter().map(|held| held.id).collect()
}

#[test]
fn events_follow_their_predecessors_whatever_the_order_of_arrival() {
    let backlog = [held(1, &["$2", "$3"]), held(2, &["$there"]), held(3, &["$2"])];
    assert_eq!(ids(deliverable(&backlog, |id| id == "$there", 9, at(1))), [2, 3, 1]);
    assert_eq!(ids(deliverable(&backlog, |id| id == "$there", 2, at(1))), [2, 3]);
    assert!(deliverable(&backlog, |_| false, 9, at(1)).is_empty());
}

#[test]
fn a_branch_that_lacks_nothing_does_not_wait_for_one_that_does() {
    let backlog = [held(1, &["$gone"]), held(2, &["$1"]), held(3, &["$there"])];
    assert_eq!(ids(deliverable(&backlog, |id| id == "$there", 9, at(1))), [3]);
}

#[test]
fn an_event_that_is_tried_again_later_holds_what_follows_it() {
    let mut backlog = [held(1, &[]), held(2, &["$1"]), held(3, &[])];
    backlog[0].due_at = at(10);
    assert_eq!(ids(deliverable(&backlog, |_| true, 9, at(9))), [3]);
    assert_eq!(ids(deliverable(&backlog, |_| true, 9, at(10))), [1, 2, 3]);
}

#[test]
fn an_event_that_was_set_aside_while_the_clock_was_far_ahead_waits_no_longer_than_others() {
    let mut backlog = [held(1, &[]), held(2, &["$1"])];
    let now = at(1000);
    backlog[0].due_at = now.after(RETRY_MAX);
    assert_eq!(ids(deliverable(&backlog, |_| true, 9, now)), [] as [i64; 0]);
    backlog[0].due_at = now.after(RETRY_MAX * 2);
    assert_eq!(ids(deliverable(&backlog, |_| true, 9, now)), [1, 2]);
}

#[test]
fn nothing_is_delivered_together_with_an_earlier_change_of_who_may_take_part() {
    let mut backlog = [held(1, &[]), held(2, &["$1"]), held(3, &["$2"])];
    backlog[1].is_acl = true;
    assert_eq!(ids(deliverable(&backlog, |_| true, 9, at(1))), [1, 2]);
}

#[test]
fn an_event_that_names_itself_or_a_circle_as_predecessors_is_not_delivered() {
    let backlog = [held(1, &["$1"]), held(2, &["$3"]), held(3, &["$2"])];
    assert!(deliverable(&backlog, |_| true, 9, at(1)).is_empty());
}

#[test]
fn only_what_is_neither_here_nor_delivered_is_asked_for_and_all_of_it_in_turn() {
    let prev: Vec<String> = (0..50).map(|n| format!("$prev{n}")).collect();
    let mut backlog = vec![held(1, &["$2", "$delivered"]), held(2, &[])];
    backlog[1].prev_events = prev.clone();
    let mut asked = BTreeSet::new();
    for turn in 7..10 {
        let questions = questions(&backlog, |id| id == "$delivered", turn);
        assert!(questions.len() <= QUESTIONS_MAX);
        asked.extend(questions);
    }
    assert_eq!(asked, prev.into_iter().collect());
}

#[test]
fn an_event_that_is_dropped_is_tried_again_a_few_times_with_growing_waits() {
    let waits: Vec<_> = (1..ATTEMPTS_MAX).map(dropped).collect();
    assert!(waits.iter().all(|wait| matches!(wait, Dropped::Again(_))));
    assert_eq!(waits[0], Dropped::Again(Duration::from_secs(10)));
    assert_eq!(dropped(ATTEMPTS_MAX), Dropped::Park);
    assert_eq!(dropped(u32::MAX), Dropped::Park);
}

/// A room: each event follows some of those before it.
fn rooms() -> impl Strategy<Value = Vec<Vec<usize>>> {
    let edges = proptest::collection::vec(any::<proptest::sample::Index>(), 0..3);
    proptest::collection::vec(edges, 1..40).prop_map(|events| {
        let prev = |(index, edges): (usize, Vec<proptest::sample::Index>)| {
            let edges: BTreeSet<usize> =
                edges.iter().filter(|_| index > 0).map(|edge| edge.index(index)).collect();
            edges.into_iter().collect()
        };
        events.into_iter().enumerate().map(prev).collect()
    })
}

/// What becomes of an event in the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Stored,
    Parked,
}

proptest! {
    /// Whatever the room looks like, in whatever order its events arrive or never do, and however often the
    /// homeserver drops them or is away: each that arrived is stored once and after its predecessors, or parked; and
    /// what lacks nothing for good is not parked for another's sake.
    #[test]
    fn every_event_ends_stored_once_after_its_predecessors_or_parked(
        room in rooms(),
        order in any::<u64>(),
        arrives_in_round in proptest::collection::vec(0..30_u64, 40),
        lost in proptest::collection::vec(proptest::bool::weighted(0.1), 40),
        drops in proptest::collection::vec(0..8_u32, 40),
        away in proptest::collection::vec(any::<bool>(), 200),
        places in 1..10_usize,
    ) {
        let count = room.len();
        let mut backlog: Vec<Held> = Vec::new();
        let mut ended: BTreeMap<usize, Ended> = BTreeMap::new();
        let mut dropped_so_far = vec![0; count];
        let number = |id: &str| id[1..].parse::<usize>().unwrap();
        let mut now = at(0);
        for round in 0..3000_u64 {
            let mut arriving: Vec<usize> =
                (0..count).filter(|n| !lost[*n] && arrives_in_round[*n] == round).collect();
            arriving.sort_by_key(|n| (*n as u64).wrapping_mul(order | 1).rotate_left(17));
            for n in arriving {
                let prev: Vec<String> = room[n].iter().map(|prev| format!("${prev}")).collect();
                let prev: Vec<&str> = prev.iter().map(String::as_str).collect();
                backlog.push(Held { due_at: now, ..held(n as i64, &prev) });
            }
            now = now.after(Duration::from_secs(60));
            if away[round as usize % away.len()] && round < 1000 {
                continue;
            }
            let asked = questions(&backlog, |_| false, round as usize);
            let stored = |id: &str| ended.get(&number(id)) == Some(&Ended::Stored);
            let there: BTreeSet<String> = asked.into_iter().filter(|id| stored(id)).collect();
            let batch: Vec<usize> = deliverable(&backlog, |id| there.contains(id), places, now)
                .into_iter()
                .map(|held| number(&held.event_id))
                .collect();
            prop_assert!(batch.len() <= places);
            for n in batch {
                let index = backlog.iter().position(|held| held.id == n as i64).unwrap();
                let prev_is_stored =
                    room[n].iter().all(|prev| ended.get(prev) == Some(&Ended::Stored));
                if prev_is_stored && dropped_so_far[n] >= drops[n] {
                    prop_assert_eq!(ended.insert(n, Ended::Stored), None);
                    backlog.remove(index);
                    continue;
                }
                dropped_so_far[n] += 1;
                backlog[index].attempts += 1;
                match dropped(backlog[index].attempts) {
                    Dropped::Again(wait) => backlog[index].due_at = now.after(wait),
                    Dropped::Park => {
                        prop_assert_eq!(ended.insert(n, Ended::Parked), None);
                        backlog.remove(index);
                    }
                }
            }
        }
        // The time to live parks what is left; it must lack something for good.
        let left: BTreeSet<usize> = backlog.iter().map(|held| held.id as usize).collect();
        for n in (0..count).filter(|n| !lost[*n]) {
            let lacks = |prev: &usize| ended.get(prev) != Some(&Ended::Stored);
            let lacks_something = room[n].iter().any(lacks);
            match ended.get(&n) {
                Some(Ended::Stored) => prop_assert!(!lacks_something && !left.contains(&n)),
                // Never dropped often enough by the homeserver alone, but for the predecessors that it dropped.
                Some(Ended::Parked) => {
                    prop_assert!(!left.contains(&n));
                    prop_assert!(drops[n] >= ATTEMPTS_MAX || !room[n].is_empty());
                }
                None => prop_assert!(left.contains(&n) && lacks_something),
            }
        }
    }
}
