//! ai: four servers, two rooms, three relays; ten minutes of outages, drawn from a seed and played without pause.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use restante_testkit::{RelayProcess, Site, World, eventually};

use crate::{BULK_DEADLINE, MAIL_DEADLINE};

/// Another schedule is played with this variable.
const SEED_VARIABLE: &str = "RESTANTE_SEED";

const SEED: u64 = 6;

/// Half a minute each.
const STEPS: usize = 20;

const SITES: [(&str, &str); 4] =
    [("a.test", "alice"), ("b.test", "bob"), ("c.test", "carol"), ("d.test", "dave")];

/// Which relays hold whose mail: each server has two, so that one is there when one is down.
const RELAYS_OF: [[usize; 2]; 4] = [[0, 1], [1, 2], [0, 2], [0, 1]];

/// Who is in which room, its maker first.
const MEMBERS_OF: [&[usize]; 2] = [&[0, 1, 2, 3], &[1, 2, 3]];

/// Servers that are away at the same time.
const AWAY_MAX: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Online,
    /// Nobody reaches it; its users write on.
    Unreachable,
    Off,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_ten_minutes_of_outages_every_timeline_has_all_that_was_sent_in_causal_order() {
    let seed = std::env::var(SEED_VARIABLE).ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(SEED);
    println!("{SEED_VARIABLE}={seed}");
    let mut play = Play::start(seed).await;
    for step in 0..STEPS {
        play.change(step).await;
        play.everybody_writes(step).await;
    }
    play.all_come_back().await;
    play.check().await;
}

struct Play {
    dice: StdRng,
    sites: Vec<Site>,
    relays: Vec<RelayProcess>,
    states: Vec<State>,
    relay_down: Option<usize>,
    rooms: Vec<Room>,
    _world: World,
}

struct Room {
    id: String,
    members: &'static [usize],
    /// Each text, with what its writer had read before.
    said: BTreeMap<String, BTreeSet<String>>,
}

impl Play {
    async fn start(seed: u64) -> Self {
        let mut world = World::with_sites(&SITES.map(|(name, _)| name));
        let mut relays = Vec::new();
        for name in ["first relay", "second relay", "third relay"] {
            relays.push(world.start_relay(name).await);
        }
        for ((name, _), of_site) in SITES.iter().zip(RELAYS_OF) {
            of_site.iter().for_each(|relay| world.hold_mail_of(name, &relays[*relay]));
        }
        let mut sites = Vec::new();
        for (name, user) in SITES {
            sites.push(world.start_site(name, user).await);
        }
        let mut rooms = Vec::new();
        for members in MEMBERS_OF {
            rooms.push(Room { id: share(&sites, members).await, members, said: BTreeMap::new() });
        }
        Self {
            dice: StdRng::seed_from_u64(seed),
            states: vec![State::Online; sites.len()],
            relay_down: None,
            sites,
            relays,
            rooms,
            _world: world,
        }
    }

    /// One relay or one server goes or comes back.
    async fn change(&mut self, step: usize) {
        if self.dice.random_range(0..4) == 0 {
            return self.change_relay(step).await;
        }
        let away = self.states.iter().filter(|state| **state != State::Online).count();
        let site = self.dice.random_range(0..self.sites.len());
        let next = match self.states[site] {
            State::Online if away == AWAY_MAX => return,
            State::Online if self.dice.random_range(0..2) == 0 => State::Unreachable,
            State::Online => State::Off,
            State::Unreachable | State::Off => State::Online,
        };
        println!("{step}: {} is {next:?}", SITES[site].0);
        self.turn(site, next).await;
    }

    async fn change_relay(&mut self, step: usize) {
        if let Some(relay) = self.relay_down.take() {
            println!("{step}: relay {relay} is back");
            return self.relays[relay].start_again().await;
        }
        let relay = self.dice.random_range(0..self.relays.len());
        println!("{step}: relay {relay} is down");
        self.relays[relay].kill().await;
        self.relay_down = Some(relay);
    }

    async fn turn(&mut self, site: usize, next: State) {
        let (before, site_of) = (self.states[site], &mut self.sites[site]);
        match (before, next) {
            (_, State::Off) => site_of.go_offline().await,
            (_, State::Unreachable) => site_of.link.cut().await,
            (State::Off, State::Online) => site_of.come_online().await,
            (_, State::Online) => site_of.link.restore().await,
        }
        self.states[site] = next;
    }

    /// Who is up writes a text in each of its rooms.
    async fn everybody_writes(&mut self, step: usize) {
        for room in &mut self.rooms {
            for &member in room.members {
                if self.states[member] == State::Off {
                    continue;
                }
                let client = &self.sites[member].client;
                let read = client.texts(&room.id).await.into_iter().collect();
                let text = format!("{} in step {step}", SITES[member].1);
                client.send_text(&room.id, &text).await.expect("a member may speak");
                room.said.insert(text, read);
            }
        }
    }

    async fn all_come_back(&mut self) {
        if let Some(relay) = self.relay_down.take() {
            self.relays[relay].start_again().await;
        }
        for site in 0..self.sites.len() {
            if self.states[site] != State::Online {
                self.turn(site, State::Online).await;
            }
        }
    }

    async fn check(&self) {
        for room in &self.rooms {
            let sent: BTreeSet<_> = room.said.keys().cloned().collect();
            println!("{} texts in {}", sent.len(), room.id);
            for &member in room.members {
                let client = &self.sites[member].client;
                let read = client.wait_for_texts(&room.id, sent.len(), BULK_DEADLINE).await;
                let (reader, distinct) = (SITES[member].1, read.iter().cloned().collect());
                assert_eq!(sent, distinct, "{reader} has not read what was sent");
                assert_eq!(read.len(), sent.len(), "{reader} has read something twice: {read:?}");
                room.assert_causal(reader, &read);
            }
        }
        for site in &self.sites {
            assert_eq!(site.homeserver.rejected_events(), 0);
        }
    }
}

impl Room {
    /// What somebody had read before writing comes before what it wrote, for every reader.
    fn assert_causal(&self, reader: &str, read: &[String]) {
        let mut earlier = BTreeSet::new();
        for text in read {
            let missing: Vec<_> = self.said[text].difference(&earlier).collect();
            assert!(missing.is_empty(), "{reader} read {text:?} before {missing:?}: {read:?}");
            earlier.insert(text.clone());
        }
    }
}

/// The first of `members` makes a room, and the others join.
async fn share(sites: &[Site], members: &[usize]) -> String {
    let (&host, guests) = members.split_first().expect("a room has a maker");
    let invited: Vec<_> = guests.iter().map(|guest| sites[*guest].client.user_id()).collect();
    let room = sites[host].client.create_room(&invited).await.expect("a room can be made");
    for &guest in guests {
        let client = &sites[guest].client;
        client.wait_for_invite(&room, MAIL_DEADLINE).await;
        client.join(&room).await.expect("an invited user can join");
        client.wait_for_room(&room, MAIL_DEADLINE).await;
    }
    for &member in members {
        eventually("all are in the room", MAIL_DEADLINE, async || {
            let known = sites[member].client.members(&room).await;
            (known.expect("a member may ask for the members").len() == members.len()).then_some(())
        })
        .await;
    }
    room
}
