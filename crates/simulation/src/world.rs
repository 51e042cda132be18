//! All machines of one run, and what the steps of a plan do to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use restante_federation_proto::ServerName;
use restante_scripted_homeserver::{Pdu, Room};

use crate::chance::Chance;
use crate::clock::BEGINNING;
use crate::copies::Copies;
use crate::machine::{Machine, identity};
use crate::network::{Network, Sabotage};
use crate::plan::{Ending, Plan, Step};
use crate::relay::RelayMachine;
use crate::story::Story;

/// Of so many of a room's last events one is chosen to fork from.
const FORK_BACK: usize = 6;

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) story: Arc<Story>,
    pub(crate) network: Arc<Network>,
    pub(crate) machines: Vec<Machine>,
    pub(crate) relays: Vec<RelayMachine>,
    /// Every event that a user wrote, by room and id.
    pub(crate) written: BTreeMap<String, BTreeMap<String, Pdu>>,
    /// Every message to devices, in the order of writing.
    pub(crate) messages: Vec<(ServerName, ServerName, String)>,
    chance: Chance,
}

impl World {
    /// Everything is there, and nothing is started.
    pub(crate) fn new(plan: Plan, sabotage: Option<Sabotage>) -> Self {
        let chance = Chance::new(plan.seed ^ 0x0077_6f72_6c64);
        let story = Arc::new(Story::new());
        let versions = plan.rooms.iter().map(|room| (room.id.clone(), room.version)).collect();
        let copies = Copies::new(versions, accountable(&plan));
        let network = Network::new(&plan, story.clone(), copies, sabotage);
        let network = Arc::new(network);
        let rooms: Vec<Room> = plan.rooms.iter().map(|room| found(&plan, room)).collect();
        let machine = |server: &crate::ServerPlan| {
            let name: ServerName = server.name.parse().expect("plans hold server names");
            let own = rooms.iter().filter(|room| room.members().contains(&name)).cloned().collect();
            Machine::new(&plan, server, network.clone(), own, &chance)
        };
        let machines = plan.servers.iter().map(machine).collect();
        let relay = |relay| RelayMachine::new(relay, network.clone(), &chance);
        let relays = plan.relays.iter().map(relay).collect();
        let (written, messages) = (BTreeMap::new(), Vec::new());
        Self { plan, story, network, machines, relays, written, messages, chance }
    }

    /// Every machine is switched on.
    pub(crate) fn start(&mut self) {
        self.relays.iter_mut().for_each(RelayMachine::start);
        for machine in &mut self.machines {
            machine.start_node();
            machine.start_homeserver();
        }
    }

    /// Does what the plan says.
    pub(crate) fn take(&mut self, step: &Step) {
        self.story.tell(format_args!("── {}", self.in_words(step)));
        match *step {
            Step::Say { server, room, fork } => self.say(server, room, fork),
            Step::ToDevice { server, to } => self.write_to_devices(server, to),
            Step::Typing { server, to } => {
                let room_id = &self.plan.rooms[0].id;
                let to = self.machines[to].name();
                if self.machines[server].has_homeserver() {
                    self.machines[server].host.typing(to, room_id);
                }
            }
            Step::ServerOff(server) => {
                self.machines[server].stop_node();
                self.machines[server].stop_homeserver();
            }
            Step::ServerOn(server) => self.server_on(server),
            Step::HomeserverOff(server) => self.machines[server].stop_homeserver(),
            Step::HomeserverOn(server) => self.machines[server].start_homeserver(),
            Step::NodeOff(server) => self.machines[server].stop_node(),
            Step::NodeOn(server) => self.machines[server].start_node(),
            Step::NodeRestart(server) => {
                self.machines[server].stop_node();
                self.machines[server].start_node();
            }
            Step::RelayOff(relay) => self.relays[relay].stop(),
            Step::RelayOn(relay) => self.relays[relay].start(),
            Step::Cut(ref one, ref other) => self.network.cut(one, other),
            Step::Join(ref one, ref other) => self.network.join(one, other),
            Step::SetClock(server, error_ms) => {
                let right = self.machines[server].plan.clock_error_ms;
                self.machines[server].clock.set_error(right + error_ms);
            }
        }
    }

    /// Everything is mended; whoever leaves for good is gone.
    pub(crate) fn mend(&mut self) {
        self.story.tell(format_args!("── everything is mended"));
        self.network.mend();
        self.relays.iter().for_each(|relay| relay.liar.repent());
        for (number, machine) in self.machines.iter().enumerate() {
            machine.clock.set_error(self.plan.servers[number].clock_error_ms);
        }
        self.start();
        if let Ending::Without(server) = self.plan.ending {
            self.story.tell(format_args!("── {} leaves for good", self.plan.servers[server].name));
            self.machines[server].stop_node();
            self.machines[server].stop_homeserver();
        }
    }

    /// Everybody who is there says a last word in each room, so that nothing is left which nothing follows.
    pub(crate) fn last_words(&mut self) {
        for room in 0..self.plan.rooms.len() {
            for server in self.plan.rooms[room].members.clone() {
                self.say(server, room, false);
            }
        }
    }

    /// Servers that are there at the end and owe anything.
    pub(crate) fn present(&self) -> impl Iterator<Item = &Machine> {
        let gone = match self.plan.ending {
            Ending::Everybody => None,
            Ending::Without(server) => Some(server),
        };
        // Without its node no homeserver gets the keys of a server that is gone, and so takes nothing of what it wrote.
        let is_judged = move |(number, machine): &(usize, &Machine)| {
            gone.is_none_or(|gone| *number != gone && machine.has_node())
        };
        self.machines.iter().enumerate().filter(is_judged).map(|(_, machine)| machine)
    }

    fn server_on(&mut self, server: usize) {
        // Either may be up first.
        if self.chance.happens(500) {
            self.machines[server].start_node();
            self.machines[server].start_homeserver();
        } else {
            self.machines[server].start_homeserver();
            self.machines[server].start_node();
        }
    }

    fn say(&mut self, server: usize, room: usize, fork: bool) {
        let machine = &self.machines[server];
        if !machine.has_homeserver() {
            return;
        }
        let room_id = &self.plan.rooms[room].id;
        let follows = fork.then(|| self.older(machine, room_id)).flatten();
        let number: usize = self.written.values().map(BTreeMap::len).sum();
        let body = format!("{} by {}", number + 1, machine.name());
        if let Ok(pdu) = machine.host.say(room_id, &body, follows) {
            self.story.tell(format_args!("   {body} in {room_id} is {}", pdu.id));
            self.written.entry(room_id.clone()).or_default().insert(pdu.id.clone(), pdu);
        }
    }

    fn older(&self, machine: &Machine, room_id: &str) -> Option<BTreeSet<String>> {
        machine.host.look(|state| {
            let room = state.room(room_id)?;
            // Nobody writes after what lies on a branch where they have not joined: it would be refused everywhere.
            let writable: Vec<_> = room
                .timeline()
                .iter()
                .filter(|id| room.has_joined_by(machine.name(), id))
                .collect();
            let back = 1 + self.chance.below(FORK_BACK);
            let at = writable.len().checked_sub(back)?;
            Some(BTreeSet::from([writable[at].clone()]))
        })
    }

    fn write_to_devices(&mut self, server: usize, to: usize) {
        let (machine, to) = (&self.machines[server], self.machines[to].name().clone());
        if !machine.has_homeserver() {
            return;
        }
        let text = format!("message {}", self.messages.len() + 1);
        machine.host.to_device(&to, &text);
        self.messages.push((machine.name().clone(), to, text));
    }

    fn in_words(&self, step: &Step) -> String {
        let server = |number: &usize| self.plan.servers[*number].name.as_str();
        let relay = |number: &usize| self.plan.relays[*number].name.as_str();
        match step {
            Step::Say { server: by, room, fork } => {
                let (by, room) = (server(by), &self.plan.rooms[*room].id);
                format!(
                    "{by} writes in {room}{}",
                    if *fork { ", after something older" } else { "" }
                )
            }
            Step::ToDevice { server: by, to } => {
                format!("{} writes to the devices of {}", server(by), server(to))
            }
            Step::Typing { server: by, to } => format!("{} types to {}", server(by), server(to)),
            Step::ServerOff(at) => format!("{} goes off", server(at)),
            Step::ServerOn(at) => format!("{} comes on", server(at)),
            Step::HomeserverOff(at) => format!("the homeserver of {} goes off", server(at)),
            Step::HomeserverOn(at) => format!("the homeserver of {} comes on", server(at)),
            Step::NodeOff(at) => format!("the node of {} goes off", server(at)),
            Step::NodeOn(at) => format!("the node of {} comes on", server(at)),
            Step::NodeRestart(at) => format!("the node of {} dies and starts again", server(at)),
            Step::RelayOff(at) => format!("{} goes off", relay(at)),
            Step::RelayOn(at) => format!("{} comes on", relay(at)),
            Step::Cut(one, other) => format!("{one} and {other} can't reach each other"),
            Step::Join(one, other) => format!("{one} and {other} reach each other again"),
            Step::SetClock(at, error) => {
                format!("the clock of {} is set {error} ms wrong", server(at))
            }
        }
    }
}

/// The servers with a node that do not leave for good.
fn accountable(plan: &Plan) -> BTreeSet<ServerName> {
    let servers = plan.servers.iter().enumerate();
    let staying = servers
        .filter(|(number, server)| server.has_node && plan.ending != Ending::Without(*number));
    staying.filter_map(|(_, server)| server.name.parse().ok()).collect()
}

fn found(plan: &Plan, room: &crate::RoomPlan) -> Room {
    let members: Vec<_> =
        room.members.iter().map(|member| identity(&plan.servers[*member].name)).collect();
    Room::found(&room.id, room.version, &members, BEGINNING).expect("a room has members")
}
