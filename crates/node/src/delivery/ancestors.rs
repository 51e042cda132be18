//! Decides which ancestors of a transaction's events are not known to be at the destination.
//!
//! Pure: the caller fetches what [`Ancestors::next_step`] asks for. An event is known to be there if it is marked so,
//! or if one that follows it is there: a server has no event without those before it. So the walk goes back along
//! both, what is unknown and what is known, by depth, until nothing unknown can turn out to lie before something
//! known. Depths are the senders' word: a wrong one makes the capsule larger, and never takes an event out of it.

use std::collections::{BTreeMap, BTreeSet};

use restante_relay_api::limits::CAPSULE_PDUS_MAX;

/// Events that one walk looks at: those of the largest capsule, and twice as many known ones beside them.
const EVENTS_MAX: usize = 3 * CAPSULE_PDUS_MAX;

/// Events that are asked for at once; the answer brings what lies before them as well.
const ASKED_AT_ONCE: usize = 20;

/// What the walk must know of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ancestor {
    /// The events that it follows.
    pub(super) prev_events: Vec<String>,
    /// One more than the largest of theirs, by its sender's word.
    pub(super) depth: u64,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask for these, and what lies before them.
    Fetch(Vec<String>),
    /// These make up the capsule, each after its predecessors.
    Done(Vec<String>),
    /// There are more than a capsule holds.
    TooMany,
}

/// A walk back from the events of one transaction in one room.
#[derive(Debug, Default)]
pub(super) struct Ancestors {
    /// Of the transaction itself.
    sent: BTreeSet<String>,
    events: BTreeMap<String, Ancestor>,
    marked: BTreeSet<String>,
    unobtainable: BTreeSet<String>,
}

/// What follows from what is known so far.
struct View<'a> {
    /// At the destination.
    known: BTreeSet<&'a str>,
    /// Ancestors that are not known to be there, whether they were fetched or not.
    unknown: BTreeSet<&'a str>,
    /// Events that were not fetched, with the largest depth that they can have.
    open: BTreeMap<&'a str, u64>,
}

impl Ancestors {
    /// Begins at the transaction's own events.
    pub(super) fn of(sent: impl IntoIterator<Item = (String, Ancestor)>) -> Self {
        let events: BTreeMap<String, Ancestor> = sent.into_iter().collect();
        Self { sent: events.keys().cloned().collect(), events, ..Self::default() }
    }

    /// The destination is known to have this event.
    pub(super) fn mark(&mut self, event_id: String) {
        self.marked.insert(event_id);
    }

    /// An event that was fetched; what was not asked for is welcome as well.
    pub(super) fn fetched(&mut self, event_id: String, event: Ancestor) {
        if self.events.len() < EVENTS_MAX + self.sent.len() {
            self.events.entry(event_id).or_insert(event);
        }
    }

    /// The homeserver does not have this event: the walk ends there.
    pub(super) fn is_unobtainable(&mut self, event_id: String) {
        self.unobtainable.insert(event_id);
    }

    /// Whether the event was fetched.
    pub(super) fn has(&self, event_id: &str) -> bool {
        self.events.contains_key(event_id)
    }

    /// Every event that was met.
    pub(super) fn mentioned(&self) -> BTreeSet<String> {
        let prevs = self.events.values().flat_map(|event| &event.prev_events);
        self.events.keys().chain(prevs).cloned().collect()
    }

    /// What to do next, by what is known so far.
    pub(super) fn next_step(&self) -> Step {
        let view = self.view();
        let unknown = view.unknown.iter().filter(|id| !self.sent.contains(**id));
        let (fetched, open): (Vec<&str>, Vec<&str>) =
            unknown.partition(|id| self.events.contains_key(**id));
        if fetched.len() > CAPSULE_PDUS_MAX {
            return Step::TooMany;
        }
        let is_full = self.events.len() >= EVENTS_MAX;
        if is_full && open.iter().any(|id| view.open.contains_key(id)) {
            return Step::TooMany;
        }
        let due = self.due(&view, &fetched);
        if due.is_empty() || is_full {
            return Step::Done(self.in_order(&view));
        }
        Step::Fetch(due)
    }

    /// What must be fetched, deepest first: every unknown event, and each known one that may follow an unknown one.
    fn due(&self, view: &View<'_>, fetched: &[&str]) -> Vec<String> {
        let shallowest = fetched.iter().map(|id| self.events[*id].depth).min();
        let deepest_open = view.unknown.iter().filter_map(|id| view.open.get(id)).copied().max();
        let may_follow = |depth_max: u64| {
            shallowest.is_some_and(|depth| depth_max > depth)
                || deepest_open.is_some_and(|depth| depth_max >= depth)
        };
        let mut due: Vec<(u64, &str)> = view
            .open
            .iter()
            .filter(|(id, depth_max)| view.unknown.contains(**id) || may_follow(**depth_max))
            .map(|(id, depth_max)| (*depth_max, *id))
            .collect();
        due.sort_unstable_by(|one, other| other.cmp(one));
        due.into_iter().take(ASKED_AT_ONCE).map(|(_, id)| id.to_owned()).collect()
    }

    fn view(&self) -> View<'_> {
        let prevs = |id: &str| self.events.get(id).map(|event| event.prev_events.as_slice());
        let mut known = BTreeSet::new();
        let met = self
            .events
            .iter()
            .flat_map(|(id, event)| std::iter::once(id).chain(&event.prev_events));
        reach(met.filter(|id| self.marked.contains(*id)), &prevs, |id| known.insert(id));
        let mut unknown = BTreeSet::new();
        let unsafe_ones = self.sent.iter().filter(|id| !known.contains(id.as_str()));
        let before = unsafe_ones.flat_map(|id| &self.events[id].prev_events);
        reach(before, &prevs, |id| !known.contains(id) && unknown.insert(id));
        let mut open: BTreeMap<&str, u64> = BTreeMap::new();
        for event in self.events.values() {
            for prev in &event.prev_events {
                if !self.events.contains_key(prev) && !self.unobtainable.contains(prev) {
                    let depth_max = event.depth.saturating_sub(1);
                    let least = open.entry(prev).or_insert(depth_max);
                    *least = depth_max.min(*least);
                }
            }
        }
        View { known, unknown, open }
    }

    /// The unknown events, each after its predecessors. Of the transaction's own events those that lie between them
    /// are among them, so that a capsule stands for itself.
    fn in_order(&self, view: &View<'_>) -> Vec<String> {
        let mut starts: Vec<&str> = view
            .unknown
            .iter()
            .filter(|id| self.events.contains_key(**id) && !self.sent.contains(**id))
            .copied()
            .collect();
        starts.sort_unstable_by_key(|id| (self.events[*id].depth, *id));
        let mut order = Vec::new();
        let mut met = BTreeSet::new();
        for start in starts {
            // The stack holds events with the number of their predecessors that were visited.
            let mut stack = vec![(start, 0)];
            if !met.insert(start) {
                continue;
            }
            while let Some((id, visited)) = stack.pop() {
                match self.events[id].prev_events.get(visited) {
                    None => order.push(id.to_owned()),
                    Some(prev) => {
                        stack.push((id, visited + 1));
                        let wanted =
                            !view.known.contains(prev.as_str()) && self.events.contains_key(prev);
                        if wanted && met.insert(prev) {
                            stack.push((prev, 0));
                        }
                    }
                }
            }
        }
        order
    }
}

/// Goes from `starts` back over everything that `take` takes.
fn reach<'a>(
    starts: impl Iterator<Item = &'a String>,
    prevs: &impl Fn(&str) -> Option<&'a [String]>,
    mut take: impl FnMut(&'a str) -> bool,
) {
    let mut due: Vec<&'a str> = starts.map(String::as_str).collect();
    while let Some(id) = due.pop() {
        if take(id) {
            due.extend(prevs(id).unwrap_or_default().iter().map(String::as_str));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    /// Events by number; each follows some with smaller numbers.
    #[derive(Debug, Clone)]
    struct Room {
        prevs: Vec<BTreeSet<usize>>,
    }

    impl Room {
        fn chain(length: usize) -> Self {
            Self {
                prevs: (0..length)
                    .map(|number| number.checked_sub(1).into_iter().collect())
                    .collect(),
            }
        }

        fn event(&self, number: usize) -> Ancestor {
            Ancestor {
                prev_events: self.prevs[number].iter().map(|prev| id(*prev)).collect(),
                depth: self.depth(number),
            }
        }

        fn depth(&self, number: usize) -> u64 {
            let mut depths: Vec<u64> = Vec::new();
            for prevs in &self.prevs[..=number] {
                depths.push(prevs.iter().map(|prev| depths[*prev] + 1).max().unwrap_or(0));
            }
            depths[number]
        }

        fn with_ancestors(&self, of: &BTreeSet<usize>) -> BTreeSet<usize> {
            let mut all = of.clone();
            for number in (0..self.prevs.len()).rev() {
                if all.contains(&number) {
                    all.extend(&self.prevs[number]);
                }
            }
            all
        }

        /// As a homeserver answers: from `from` back by depth, so many at most.
        fn backfill(&self, from: &[String], limit: usize) -> Vec<usize> {
            let mut due: BTreeSet<(u64, usize)> =
                from.iter().map(|id| number(id)).map(|n| (self.depth(n), n)).collect();
            let mut answer = Vec::new();
            while let Some((_, number)) = due.pop_last() {
                if answer.len() == limit {
                    break;
                }
                answer.push(number);
                due.extend(self.prevs[number].iter().map(|prev| (self.depth(*prev), *prev)));
            }
            answer
        }

        /// The walk with a homeserver that answers everything, and how often it was asked.
        fn walk(
            &self,
            sent: &BTreeSet<usize>,
            marked: &BTreeSet<usize>,
            limit: usize,
        ) -> (Step, usize) {
            let mut walk =
                Ancestors::of(sent.iter().map(|number| (id(*number), self.event(*number))));
            marked.iter().for_each(|number| walk.mark(id(*number)));
            for asked in 0.. {
                let Step::Fetch(from) = walk.next_step() else { return (walk.next_step(), asked) };
                assert!(from.iter().all(|id| !walk.has(id)));
                for number in self.backfill(&from, limit) {
                    walk.fetched(id(number), self.event(number));
                }
            }
            unreachable!("a walk ends")
        }
    }

    fn id(number: usize) -> String {
        format!("${number}")
    }

    fn number(id: &str) -> usize {
        id[1..].parse().unwrap()
    }

    fn done(step: Step) -> Vec<usize> {
        let Step::Done(events) = step else { panic!("{step:?}") };
        events.iter().map(|id| number(id)).collect()
    }

    #[test]
    fn nothing_is_asked_for_when_the_predecessor_is_known() {
        let room = Room::chain(10);
        assert_eq!(room.walk(&[9].into(), &[8].into(), 100), (Step::Done(Vec::new()), 0));
    }

    #[test]
    fn a_chain_is_fetched_back_to_what_is_known_in_one_question() {
        let room = Room::chain(50);
        let (step, asked) = room.walk(&[49].into(), &[40].into(), 100);
        assert_eq!((done(step), asked), ((41..49).collect(), 1));
    }

    #[test]
    fn what_lies_between_two_events_of_one_transaction_comes_with_the_first_of_them() {
        let room = Room::chain(5);
        let (step, _) = room.walk(&[2, 4].into(), &[1].into(), 100);
        assert_eq!(done(step), [2, 3]);
    }

    #[test]
    fn a_branch_from_before_what_is_known_ends_where_it_forked() {
        // 100 is the destination's join after a long history; 101 was written beside it, on 90.
        let mut room = Room::chain(101);
        room.prevs.push([90].into());
        room.prevs.push([100, 101].into());
        let (step, asked) = room.walk(&[102].into(), &[100].into(), 10);
        assert_eq!(done(step), [101]);
        assert!(asked < 8, "{asked}");
    }

    #[test]
    fn more_than_a_capsule_holds_is_not_left_along_in_part() {
        let room = Room::chain(CAPSULE_PDUS_MAX + 2);
        let sent = [CAPSULE_PDUS_MAX + 1].into();
        assert_eq!(room.walk(&sent, &BTreeSet::new(), 100).0, Step::TooMany);
        assert_eq!(done(room.walk(&sent, &[0].into(), 100).0).len(), CAPSULE_PDUS_MAX);
    }

    #[test]
    fn the_walk_ends_where_the_homeservers_own_history_begins() {
        let room = Room::chain(6);
        let mut walk = Ancestors::of([(id(5), room.event(5))]);
        for number in [4, 3] {
            walk.fetched(id(number), room.event(number));
        }
        assert_eq!(walk.next_step(), Step::Fetch(vec![id(2)]));
        walk.is_unobtainable(id(2));
        assert_eq!(done(walk.next_step()), [3, 4]);
    }

    fn room() -> impl Strategy<Value = Room> {
        prop::collection::vec(prop::collection::vec(any::<Index>(), 1..4), 1..60).prop_map(|all| {
            let near = |number: usize, index: &Index| number - 1 - index.index(number.min(8));
            let prevs = all.iter().enumerate().map(|(number, prevs)| {
                prevs.iter().filter(|_| number > 0).map(|index| near(number, index)).collect()
            });
            Room { prevs: prevs.collect() }
        })
    }

    fn some_of(room: &Room, chosen: &[Index]) -> BTreeSet<usize> {
        chosen.iter().map(|index| index.index(room.prevs.len())).collect()
    }

    proptest! {
        #[test]
        fn a_capsule_is_exactly_the_unknown_ancestors_in_order(
            room in room(),
            sent in prop::collection::vec(any::<Index>(), 1..4),
            marked in prop::collection::vec(any::<Index>(), 0..4),
            limit in 1..12usize,
        ) {
            let (sent, marked) = (some_of(&room, &sent), some_of(&room, &marked));
            // What the destination has beside is not met on the way back.
            let marked: BTreeSet<usize> = room.with_ancestors(&sent).intersection(&marked).copied().collect();
            let known = room.with_ancestors(&marked);
            let mut ancestors = room.with_ancestors(&sent);
            ancestors.retain(|number| !known.contains(number) && !sent.contains(number));
            let (step, asked) = room.walk(&sent, &marked, limit);
            let capsule = done(step);

            let expected: BTreeSet<usize> = ancestors.clone();
            let own: BTreeSet<usize> = capsule.iter().copied().filter(|n| !sent.contains(n)).collect();
            prop_assert_eq!(own, expected);
            prop_assert_eq!(capsule.iter().collect::<BTreeSet<_>>().len(), capsule.len());
            let mut before = BTreeSet::new();
            for number in capsule {
                prop_assert!(room.prevs[number].iter().all(|prev| known.contains(prev) || before.contains(prev)));
                before.insert(number);
            }
            prop_assert!(asked <= room.prevs.len());
        }

        #[test]
        fn a_walk_with_wrong_depths_ends_and_forgets_nothing(
            room in room(),
            sent in any::<Index>(),
            marked in prop::collection::vec(any::<Index>(), 0..4),
            depths in prop::collection::vec(any::<u64>(), 60),
        ) {
            let (sent, marked) = (some_of(&room, &[sent]), some_of(&room, &marked));
            let event = |number: usize| Ancestor { depth: depths[number], ..room.event(number) };
            let mut walk = Ancestors::of(sent.iter().map(|number| (id(*number), event(*number))));
            marked.iter().for_each(|number| walk.mark(id(*number)));
            let capsule = loop {
                match walk.next_step() {
                    Step::Fetch(ids) => ids.iter().for_each(|wanted| walk.fetched(wanted.clone(), event(number(wanted)))),
                    step => break done(step),
                }
            };
            let known = room.with_ancestors(&marked);
            let unknown = room.with_ancestors(&sent);
            let forgotten = unknown.iter().find(|n| !known.contains(n) && !sent.contains(n) && !capsule.contains(n));
            prop_assert_eq!(forgotten, None);
        }
    }
}
