//! Draws a plan from a seed.

use std::time::Duration;

use restante_federation_proto::RoomVersion;

use super::{Ending, Manner, Plan, RelayPlan, RoomPlan, ServerPlan, Step};
use crate::chance::Chance;

/// A clock that is somewhat wrong; relays allow a minute without being told the right time.
const SKEW_MAX_MS: u64 = 90_000;

/// A clock that is set wrong: less than the ten minutes that signed times may lie ahead.
const JUMP_MAX_MS: u64 = 9 * 60_000;

const SECOND: Duration = Duration::from_secs(1);

impl Plan {
    /// The plan of `seed`.
    pub fn draw(seed: u64) -> Self {
        let chance = Chance::new(seed);
        let relays = relays(&chance);
        let servers = servers(&chance, relays.len());
        let rooms = rooms(&chance, servers.len());
        let calm = chance.happens(300);
        let mended_at = chance.duration(SECOND * 60..SECOND * 1500);
        let mut plan = Self {
            seed,
            relays,
            loss_permille: if calm { 0 } else { *chance.pick(&[0, 10, 50, 150]) },
            latency_max: Duration::from_millis(*chance.pick(&[20, 200, 3000])),
            steps: Vec::new(),
            mended_at,
            ending: ending(&chance, &servers),
            servers,
            rooms,
        };
        plan.steps.extend(words(&chance, &plan));
        plan.steps.extend(outages(&chance, &plan));
        if chance.happens(400) {
            plan.steps.extend(turns(&chance, &plan));
        }
        plan.steps.sort_by_key(|(at, _)| *at);
        plan
    }
}

fn skew(chance: &Chance, max: u64) -> i64 {
    let error = i64::try_from(chance.within(0..max)).unwrap_or(0);
    if chance.happens(500) { -error } else { error }
}

fn relays(chance: &Chance) -> Vec<RelayPlan> {
    let lies = [
        Manner::AltersEvents,
        Manner::AltersEdus,
        Manner::Withholds,
        Manner::Repeats,
        Manner::Reorders,
        Manner::Delays,
        Manner::Swallows,
    ];
    let some_lie = chance.happens(400);
    let count = 1 + chance.below(3);
    let relay = |number: usize| RelayPlan {
        name: format!("relay{number}.test"),
        manner: if some_lie && chance.happens(500) { *chance.pick(&lies) } else { Manner::Honest },
        clock_error_ms: if chance.happens(300) { skew(chance, SKEW_MAX_MS) } else { 0 },
    };
    (1..=count).map(relay).collect()
}

fn servers(chance: &Chance, relays: usize) -> Vec<ServerPlan> {
    let count = 2 + chance.below(3);
    let some_stock = chance.happens(250);
    let server = |number: usize| {
        let mut own: Vec<usize> = (0..relays).filter(|_| chance.happens(700)).collect();
        if own.is_empty() {
            own.push(chance.below(relays));
        }
        ServerPlan {
            name: format!("{}.test", char::from(b'a' + u8::try_from(number).unwrap_or(25))),
            has_node: !(some_stock && chance.happens(350)),
            clock_error_ms: if chance.happens(300) { skew(chance, SKEW_MAX_MS) } else { 0 },
            relays: own,
        }
    };
    (0..count).map(server).collect()
}

fn rooms(chance: &Chance, servers: usize) -> Vec<RoomPlan> {
    let room = |number: usize| {
        let mut members: Vec<usize> = (0..servers).filter(|_| chance.happens(750)).collect();
        while members.len() < 2 {
            members = vec![chance.below(servers), chance.below(servers)];
            members.sort_unstable();
            members.dedup();
        }
        let version = *chance.pick(&[RoomVersion::V11, RoomVersion::V10, RoomVersion::V6]);
        RoomPlan { id: format!("!room{number}:test"), version, members }
    };
    (1..=1 + chance.below(3)).map(room).collect()
}

/// In some runs a server with a node leaves for good: what it left at relays must do.
fn ending(chance: &Chance, servers: &[ServerPlan]) -> Ending {
    let leaver = chance.below(servers.len());
    if chance.happens(300) && servers[leaver].has_node {
        Ending::Without(leaver)
    } else {
        Ending::Everybody
    }
}

fn words(chance: &Chance, plan: &Plan) -> Vec<(Duration, Step)> {
    let end = plan.mended_at;
    let (writing, forks) = (5 + chance.below(75), chance.below(300) as u64);
    // Some write in bursts, so that several events lie in one transaction.
    let bursts = chance.happens(400);
    let mut at = Duration::ZERO;
    let mut steps = Vec::new();
    for _ in 0..writing {
        if !bursts || chance.happens(250) {
            at = chance.duration(Duration::ZERO..end);
        }
        let room = chance.below(plan.rooms.len());
        let members = &plan.rooms[room].members;
        let server = *chance.pick(members);
        let to = *chance.pick(members);
        steps.push((
            at,
            match chance.below(10) {
                0 | 1 if to != server => Step::ToDevice { server, to },
                2 if to != server => Step::Typing { server, to },
                _ => Step::Say { server, room, fork: chance.happens(forks) },
            },
        ));
    }
    steps
}

fn outages(chance: &Chance, plan: &Plan) -> Vec<(Duration, Step)> {
    let mut steps = Vec::new();
    let machines: Vec<&String> = plan
        .servers
        .iter()
        .map(|server| &server.name)
        .chain(plan.relays.iter().map(|relay| &relay.name))
        .collect();
    let (count, length_max) = (chance.below(*chance.pick(&[1, 6, 20])), chance.within(5..500));
    for _ in 0..count {
        let begins = chance.duration(Duration::ZERO..plan.mended_at);
        let ends = begins + chance.duration(SECOND..SECOND + Duration::from_secs(length_max));
        let server = chance.below(plan.servers.len());
        let relay = chance.below(plan.relays.len());
        let (one, other) = (chance.pick(&machines), chance.pick(&machines));
        let (first, last) = match chance.below(8) {
            0 | 1 => (Step::ServerOff(server), Step::ServerOn(server)),
            2 => (Step::HomeserverOff(server), Step::HomeserverOn(server)),
            3 => (Step::NodeOff(server), Step::NodeOn(server)),
            4 => (Step::NodeRestart(server), Step::NodeRestart(server)),
            5 => (Step::RelayOff(relay), Step::RelayOn(relay)),
            6 => {
                let error = skew(chance, JUMP_MAX_MS);
                (Step::SetClock(server, error), Step::SetClock(server, 0))
            }
            _ if one != other => {
                let pair = || ((*one).clone(), (*other).clone());
                (Step::Cut(pair().0, pair().1), Step::Join(pair().0, pair().1))
            }
            _ => continue,
        };
        steps.push((begins, first));
        steps.push((ends, last));
    }
    steps
}

/// Servers that are hardly ever there together: each is on for its turn, and mail gets from one to the other only by
/// relays.
fn turns(chance: &Chance, plan: &Plan) -> Vec<(Duration, Step)> {
    let turn = chance.duration(SECOND * 20..SECOND * 200);
    let mut steps: Vec<(Duration, Step)> =
        (1..plan.servers.len()).map(|server| (Duration::ZERO, Step::ServerOff(server))).collect();
    for (number, server) in (0_u32..).zip((0..plan.servers.len()).cycle()) {
        let begins = turn * number;
        if begins >= plan.mended_at {
            break;
        }
        // Some meet for a moment.
        let overlap = if chance.happens(300) { turn / 4 } else { Duration::ZERO };
        steps.push((begins, Step::ServerOn(server)));
        steps.push((begins + turn + overlap, Step::ServerOff(server)));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_plan_and_another_another() {
        assert_eq!(Plan::draw(7), Plan::draw(7));
        assert_ne!(Plan::draw(7), Plan::draw(8));
    }

    #[test]
    fn every_kind_of_relay_ending_and_step_is_drawn_sometimes() {
        let plans: Vec<Plan> = (0..2000).map(Plan::draw).collect();
        let manners: std::collections::BTreeSet<String> = plans
            .iter()
            .flat_map(|plan| &plan.relays)
            .map(|relay| format!("{:?}", relay.manner))
            .collect();
        assert_eq!(manners.len(), 8);
        assert!(plans.iter().any(|plan| plan.ending != Ending::Everybody));
        assert!(plans.iter().flat_map(|plan| &plan.servers).any(|server| !server.has_node));
    }
}
