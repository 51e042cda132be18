//! The promises, as far as they can be seen from outside.

use std::collections::{BTreeMap, BTreeSet};

use restante_federation_proto::ServerName;
use restante_mailbox::MailboxStore as _;
use restante_scripted_homeserver::{Homeserver, Pdu};
use serde_json::Value;

use crate::copies::message;
use crate::machine::Machine;
use crate::plan::{Ending, Manner, Step};
use crate::world::World;

/// What is to be expected of those who are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// That they have what honest relays, or they themselves, said to have taken, and all that it leads back to.
    WhatWasTaken,
    /// If everybody is there, that they have all that was written: everybody has said a last word since, so that nothing
    /// is left which nothing follows.
    Everything,
}

/// What can't be expected because a server is gone for good.
#[derive(Debug, Clone, Default)]
pub(crate) struct Excused {
    /// A server, and the gone one, whose mail its node holds and says so.
    held: BTreeSet<(ServerName, ServerName)>,
    /// Servers that have no keys of the gone one and can get none: what it wrote, and what follows that, waits there.
    without_keys: BTreeSet<ServerName>,
}

/// Mail of the server that is gone for good: without its keys a node holds it, as unverified first contact or parked, and
/// a homeserver refuses it.
pub(crate) async fn excused(world: &World) -> Excused {
    let mut excused = Excused::default();
    let Some(gone) = gone(world) else { return excused };
    for machine in world.present() {
        let status = machine.status().await.unwrap_or_default();
        for waiting in status["inbox"]["waiting"].as_array().into_iter().flatten() {
            let origin = waiting["origin"].as_str().and_then(|origin| origin.parse().ok());
            if let Some(origin) = origin.filter(|_| waiting["reason"].is_string()) {
                excused.held.insert((machine.name().clone(), origin));
            }
        }
        let is_known_to_node =
            machine.keys_of(gone).await.is_some_and(|keys| !keys["believed"].is_null());
        if !is_known_to_node && !machine.host.look(|state| state.knows_keys_of(gone)) {
            excused.without_keys.insert(machine.name().clone());
        }
    }
    excused
}

/// What is not as it should be yet.
pub(crate) fn open_ends(world: &World, expected: Expected, excused: &Excused) -> Vec<String> {
    let mut open = Vec::new();
    for machine in world.present() {
        open.extend(missing_events(world, machine, expected, excused));
        open.extend(missing_messages(world, machine, excused));
        if expected == Expected::Everything
            && gone(world).is_none()
            && !machine.host.look(Homeserver::has_sent_all)
        {
            open.push(format!("{} has not sent all that it wrote", machine.name()));
        }
    }
    open
}

/// The name of the server that left for good.
fn gone(world: &World) -> Option<&ServerName> {
    match world.plan.ending {
        Ending::Everybody => None,
        Ending::Without(server) => Some(world.machines[server].name()),
    }
}

/// Events that should be visible at a server and are not.
fn missing_events(
    world: &World,
    machine: &Machine,
    expected: Expected,
    excused: &Excused,
) -> Vec<String> {
    let mut missing = Vec::new();
    let unreadable = gone(world).filter(|_| excused.without_keys.contains(machine.name()));
    for (room_id, written) in &world.written {
        let seen = seen_in(machine, room_id);
        let Some(seen) = seen else { continue };
        let wanted = match expected {
            Expected::WhatWasTaken => deliverable(world, machine, written, &seen),
            Expected::Everything if gone(world).is_none() => written.keys().cloned().collect(),
            // Others may have more of a server that is gone, and this one not its keys.
            Expected::Everything => deliverable(world, machine, written, &seen),
        };
        let unreadable = unreadable.map(|gone| unreadable_by(gone, written)).unwrap_or_default();
        for pdu in wanted.difference(&unreadable).filter_map(|id| written.get(id)) {
            if !seen.contains(&pdu.id) {
                let body = pdu.body().unwrap_or_default();
                let name = machine.name();
                let dropped = dropped(machine, &pdu.id);
                missing.push(format!(
                    "{name} does not have “{body}” ({}) in {room_id}{dropped}",
                    pdu.id
                ));
            }
        }
    }
    missing
}

/// What `gone` wrote, and all that follows it.
fn unreadable_by(gone: &ServerName, written: &BTreeMap<String, Pdu>) -> BTreeSet<String> {
    let mut by_depth: Vec<&Pdu> = written.values().collect();
    by_depth.sort_by_key(|pdu| (pdu.depth, &pdu.id));
    let mut unreadable = BTreeSet::new();
    for pdu in by_depth {
        if pdu.server == *gone || !pdu.prev_events.is_disjoint(&unreadable) {
            unreadable.insert(pdu.id.clone());
        }
    }
    unreadable
}

/// What its homeserver says of an event that it took and dropped.
fn dropped(machine: &Machine, id: &str) -> String {
    machine.host.look(|state| {
        let mut dropped = state.seen().dropped.iter();
        let dropped = dropped.find(|(dropped, _)| dropped == id);
        dropped.map_or_else(String::new, |(_, why)| format!("; its homeserver dropped it: {why}"))
    })
}

/// The ids of a room's events at a server; `None` if it is not in it.
fn seen_in(machine: &Machine, room_id: &str) -> Option<BTreeSet<String>> {
    machine.host.look(|state| {
        let room = state.room(room_id)?;
        Some(room.timeline().iter().cloned().collect())
    })
}

/// What a server has, and of what was taken for it all that follows nothing else.
fn deliverable(
    world: &World,
    machine: &Machine,
    written: &BTreeMap<String, Pdu>,
    had: &BTreeSet<String>,
) -> BTreeSet<String> {
    let mut had = had.clone();
    let taken = world.network.copies.for_server(machine.name()).events;
    let mut by_depth: Vec<&Pdu> = written.values().filter(|pdu| taken.contains(&pdu.id)).collect();
    by_depth.sort_by_key(|pdu| (pdu.depth, &pdu.id));
    for pdu in by_depth {
        if pdu.prev_events.iter().all(|prev| had.contains(prev)) {
            had.insert(pdu.id.clone());
        }
    }
    had
}

/// Messages to devices that should be there and are not.
fn missing_messages(world: &World, machine: &Machine, excused: &Excused) -> Vec<String> {
    let taken = world.network.copies.for_server(machine.name()).messages;
    let seen = seen_messages(machine);
    let to_it = world.messages.iter().filter(|(_, to, _)| to == machine.name());
    let missing = to_it.filter(|(from, _, text)| {
        let is_expected = taken.contains(&(from.clone(), text.clone()))
            && !excused.held.contains(&(machine.name().clone(), from.clone()));
        is_expected && !seen.contains(&(from.clone(), text.clone()))
    });
    let name = machine.name();
    missing.map(|(from, _, text)| format!("{name} does not have “{text}” of {from}")).collect()
}

fn seen_messages(machine: &Machine) -> Vec<(ServerName, String)> {
    machine.host.look(|state| {
        let edus = state.seen().edus.iter();
        let texts = edus.filter_map(|edu| {
            let edu_json = serde_json::json!({ "content": edu.content });
            Some((edu.origin.clone(), message(&edu_json)?))
        });
        texts.collect()
    })
}

/// What is wrong at the end, open ends included.
pub(crate) async fn failures(world: &World, expected: Expected) -> Vec<String> {
    let mut failures = open_ends(world, expected, &excused(world).await);
    for machine in &world.machines {
        let words = machine.broken_words.lock().map(|words| words.clone()).unwrap_or_default();
        failures.extend(words.into_iter().map(|text| format!("{text}, and nobody took it")));
    }
    for machine in world.present() {
        failures.extend(disorder(machine));
        failures.extend(wrong_messages(world, machine));
        failures.extend(left_in_inbox(world, machine).await);
        failures.extend(left_at_relays(world, machine).await);
    }
    failures
}

/// Events before their predecessors, or twice.
fn disorder(machine: &Machine) -> Vec<String> {
    machine.host.look(|state| {
        let mut failures = Vec::new();
        for room in state.rooms() {
            let mut met: BTreeSet<&str> = BTreeSet::new();
            for pdu in room.timeline().iter().filter_map(|id| room.event(id)) {
                let name = machine.name();
                if !pdu.prev_events.iter().all(|prev| met.contains(prev.as_str())) {
                    failures.push(format!("{name} shows {} before what it follows", pdu.id));
                }
                if !met.insert(&pdu.id) {
                    failures.push(format!("{name} shows {} twice", pdu.id));
                }
            }
        }
        failures
    })
}

/// Messages that nobody wrote, that came twice, or out of order.
fn wrong_messages(world: &World, machine: &Machine) -> Vec<String> {
    let mut failures = Vec::new();
    let mut last: BTreeMap<ServerName, usize> = BTreeMap::new();
    for (from, text) in seen_messages(machine) {
        let name = machine.name();
        let place = world
            .messages
            .iter()
            .position(|(by, to, written)| (by, to, written) == (&from, machine.name(), &text));
        let Some(place) = place else {
            failures.push(format!("{name} has “{text}” of {from}, who never wrote that"));
            continue;
        };
        match last.insert(from.clone(), place) {
            Some(before) if before == place => {
                failures.push(format!("{name} has “{text}” of {from} twice"));
            }
            Some(before) if before > place && !may_come_late(world, machine) => {
                failures.push(format!("{name} has “{text}” of {from} after a later one"));
            }
            _ => {}
        }
    }
    failures
}

/// A relay that can't be reached, or that lies, may hold a message back for longer than the minute that a node waits.
fn may_come_late(world: &World, machine: &Machine) -> bool {
    let own = machine.plan.relays.iter().map(|relay| (*relay, &world.plan.relays[*relay]));
    own.clone().any(|(_, relay)| relay.manner != Manner::Honest)
        || world.plan.loss_permille > LOSS_MAX_FOR_ORDER
        || world.plan.steps.iter().any(|(_, step)| match step {
            Step::RelayOff(relay) => machine.plan.relays.contains(relay),
            Step::Cut(one, other) => {
                own.clone().any(|(_, relay)| [one, other].contains(&&relay.name))
            }
            _ => false,
        })
}

/// Of a thousand messages: with more, several looks at a relay in a row may be lost.
const LOSS_MAX_FOR_ORDER: u64 = 10;

/// What a node keeps although all is mended.
async fn left_in_inbox(world: &World, machine: &Machine) -> Vec<String> {
    if !machine.has_node() {
        return Vec::new();
    }
    let name = machine.name();
    let Some(status) = machine.status().await else {
        return vec![format!("the node of {name} does not answer its operator")];
    };
    let mut failures = Vec::new();
    let inbox = &status["inbox"];
    for waiting in inbox["waiting"].as_array().into_iter().flatten() {
        if waiting["state"] != "parked" && gone(world).is_none() {
            failures.push(format!("{name} still holds {waiting}"));
        }
    }
    for room in inbox["backlog"].as_array().into_iter().flatten() {
        if gone(world).is_none() {
            failures.push(format!("{name} still has a backlog: {room}"));
        }
    }
    let parked = machine.parked().await.unwrap_or_default();
    if world.plan.relays.iter().all(|relay| relay.manner == Manner::Honest) {
        failures.extend(parked_without_need(&parked).map(|one| format!("{name} parked {one}")));
    }
    failures
}

fn parked_without_need(parked: &Value) -> impl Iterator<Item = &Value> {
    let lists = parked.as_object().into_iter().flat_map(|object| object.values());
    lists.filter_map(Value::as_array).flatten()
}

/// Mail of a server that is there, at relays that keep their promises.
async fn left_at_relays(world: &World, machine: &Machine) -> Vec<String> {
    let mut failures = Vec::new();
    if !machine.has_node() {
        return failures;
    }
    for number in &machine.plan.relays {
        let relay = &world.relays[*number];
        if world.plan.relays[*number].manner != Manner::Honest {
            continue;
        }
        let depth = relay.store.depth(machine.name()).await;
        if let Ok(depth) = depth
            && depth.count > 0
        {
            let (relay, name, count) = (relay.name(), machine.name(), depth.count);
            failures.push(format!("{relay} still holds {count} envelopes for {name}"));
        }
    }
    failures
}
