//! Two homeservers that live in this process, and their nodes and relays, which are processes and die.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::Full;
use restante_federation::Identity;
use restante_federation_proto::{Clock as _, RoomVersion, SigningKey, SystemClock};
use restante_scripted_homeserver::{Habits, Homeserver, Host, HostParts, Room};
use restante_testkit::{HttpServer, Link, Onward, RelayPlan, RelayProcess, Serves};
use tempfile::TempDir;

use super::hook::Hook;
use super::letters::{Handed, Written};
use super::process::{Doors, Node, NodePlan};
use crate::dice::{Dice, START_MICROS, pass};

pub(super) const ROOM: &str = "!room:a.test";
const NAMES: [&str; 2] = ["a.test", "b.test"];
const SECRET: &str = "secret";

/// Time that a request and its answer take at most: a node dies in between as well.
const LATENCY_MICROS: u64 = 20_000;

/// One in so many rounds ends its victims softly.
const SOFT_ENDS_SHARE: usize = 8;

/// One in so many starts of a node ends with a kill.
const STILLBORN_SHARE: usize = 6;

/// One in so many messages goes to devices instead of the room.
const TO_DEVICE_SHARE: usize = 4;

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    A,
    B,
}

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    Node(Side),
    Relay(usize),
}

/// A homeserver with its node.
pub(super) struct Site {
    pub(super) identity: Identity,
    pub(super) host: Host,
    is_up: Arc<AtomicBool>,
    _server: HttpServer,
    pub(super) node: Node,
    pub(super) written: Written,
    pub(super) handed: Arc<Handed>,
}

pub(crate) struct World {
    pub(super) sites: [Site; 2],
    pub(super) relays: Vec<RelayProcess>,
    /// The ways that each node takes to the other.
    links: [Link; 2],
    _folder: TempDir,
}

impl Side {
    fn index(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }

    pub(super) fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl World {
    /// Two sites that have written to each other once, so that everybody knows everybody's keys.
    pub(crate) async fn start(seed: u64) -> Self {
        let folder = TempDir::with_prefix("restante-crash-").unwrap();
        let doors = [Doors::reserve(), Doors::reserve()];
        let links = [0, 1].map(|site: usize| Link::to(doors[site].inbound.address()));
        let routes: BTreeMap<_, _> = NAMES
            .iter()
            .zip(&doors)
            .map(|(name, doors)| ((*name).to_owned(), doors.inbound.url()))
            .collect();
        let mut relays = Vec::new();
        for name in ["relay-1", "relay-2"] {
            let directory = folder.path().join(name);
            let (serves, onward) = (Serves::Everybody, Onward::default());
            let plan = RelayPlan {
                name: name.to_owned(),
                directory,
                routes: routes.clone(),
                serves,
                onward,
            };
            relays.push(RelayProcess::start(plan).await);
        }
        let addresses: Vec<_> = relays.iter().map(RelayProcess::address).collect();
        // Either each server has a relay of its own, or both relays hold everybody's mail.
        let of = |site: usize| {
            if seed.is_multiple_of(2) { vec![addresses[site].clone()] } else { addresses.clone() }
        };
        let relays_of: BTreeMap<_, _> =
            NAMES.iter().enumerate().map(|(site, name)| ((*name).to_owned(), of(site))).collect();
        let identities = NAMES.map(identity);
        let now = SystemClock.now();
        let room = Room::found(ROOM, RoomVersion::V11, &identities, now).unwrap();
        let mut sites = Vec::new();
        for (site, identity) in identities.into_iter().enumerate() {
            let handed = Arc::<Handed>::default();
            let mut homeserver = Homeserver::new(identity.clone(), habits(), now);
            homeserver.enter(room.clone());
            let hook = Hook {
                address: doors[site].outbound.address(),
                secret: SECRET.to_owned(),
                handed: handed.clone(),
            };
            let parts =
                HostParts { homeserver, exchange: Arc::new(hook), clock: Arc::new(SystemClock) };
            let host = Host::start(parts);
            let is_up = Arc::new(AtomicBool::new(true));
            let server = serve(host.clone(), is_up.clone()).await;
            let routes: BTreeMap<_, _> = NAMES
                .iter()
                .zip(&links)
                .map(|(name, link)| ((*name).to_owned(), link.url()))
                .collect();
            let plan = NodePlan {
                identity: &identity,
                homeserver: server.url(),
                directory: folder.path().join(NAMES[site]),
                routes: &routes,
                relays: &relays_of,
                secret: SECRET,
            };
            let node = Node::start(plan, &doors[site]).await;
            let written = Written::default();
            sites.push(Site { identity, host, is_up, _server: server, node, written, handed });
        }
        let sites: [Site; 2] =
            sites.try_into().unwrap_or_else(|_| unreachable!("there are two names"));
        let mut world = Self { sites, relays, links, _folder: folder };
        world.restore_link().await;
        world.write(Side::A);
        world.write(Side::B);
        world.settle().await;
        world
    }

    pub(super) fn site(&self, side: Side) -> &Site {
        &self.sites[side.index()]
    }

    /// The next message of `side`'s user.
    pub(crate) fn write(&mut self, side: Side) {
        let to = self.site(side.other()).identity.server_name.clone();
        let site = &mut self.sites[side.index()];
        let number = site.written.messages.len() + site.written.to_device.len();
        if number % TO_DEVICE_SHARE == TO_DEVICE_SHARE - 1 {
            let text = format!("{side:?} to devices {number}");
            site.host.to_device(&to, &text);
            site.written.to_device.push(text);
        } else {
            let text = format!("{side:?} says {number}");
            site.host.say(ROOM, &text, None).unwrap();
            site.host.typing(&to, ROOM);
            site.written.messages.push(text);
        }
    }

    pub(crate) async fn cut_link(&mut self) {
        for link in &mut self.links {
            link.cut().await;
        }
    }

    pub(crate) async fn restore_link(&mut self) {
        for link in &mut self.links {
            link.restore().await;
        }
    }

    /// A node in most cases; sometimes a relay, or both at once.
    pub(crate) fn draw_victims(&self, dice: &mut Dice) -> Vec<Victim> {
        let side = if dice.below(2) == 0 { Side::A } else { Side::B };
        let relay = Victim::Relay(dice.below(self.relays.len()));
        match dice.below(8) {
            0 => vec![relay],
            1 => vec![Victim::Node(side), relay],
            2 => vec![Victim::Node(Side::A), Victim::Node(Side::B)],
            _ => vec![Victim::Node(side)],
        }
    }

    /// Whether `side`'s homeserver can be reached.
    pub(crate) fn answer(&self, side: Side, answers: bool) {
        self.site(side).is_up.store(answers, Ordering::SeqCst);
    }

    /// Kills them, or now and then asks them to stop; how many were killed.
    pub(crate) async fn end(&mut self, victims: &[Victim], dice: &mut Dice) -> usize {
        let softly = dice.below(SOFT_ENDS_SHARE) == 0;
        for victim in victims {
            match (victim, softly) {
                (Victim::Node(side), false) => self.sites[side.index()].node.kill().await,
                (Victim::Node(side), true) => self.sites[side.index()].node.stop().await,
                (Victim::Relay(relay), false) => self.relays[*relay].kill().await,
                (Victim::Relay(relay), true) => self.relays[*relay].stop().await,
            }
        }
        if softly { 0 } else { victims.len() }
    }

    /// Starts them, some nodes not before a start that ends with a kill; how many were killed so.
    pub(crate) async fn start_again(&mut self, victims: &[Victim], dice: &mut Dice) -> usize {
        let mut killed = 0;
        for victim in victims {
            match victim {
                Victim::Node(side) => {
                    let node = &mut self.sites[side.index()].node;
                    if dice.below(STILLBORN_SHARE) == 0 {
                        node.die_young(dice.micros(START_MICROS)).await;
                        killed += 1;
                    }
                    node.start_again().await;
                }
                Victim::Relay(relay) => self.relays[*relay].start_again().await,
            }
        }
        killed
    }

    /// The site of `side` is gone, with homeserver, node and all that they knew.
    pub(crate) async fn lose(&mut self, side: Side) {
        let site = &mut self.sites[side.index()];
        site.node.kill().await;
        site.host.stop();
        self.answer(side, false);
    }
}

fn identity(name: &str) -> Identity {
    let id = "ed25519:a_1".parse().unwrap();
    let key = SigningKey::from_seed(id, &[name.as_bytes()[0]; 32]);
    Identity { server_name: name.parse().unwrap(), key: Arc::new(key) }
}

/// Synapse in a hurry, which keeps what it could not send: what it leaves out by habit would be no node's fault.
fn habits() -> Habits {
    Habits {
        repeats_max: 1,
        repeat_first: Duration::from_millis(50),
        back_off_first: Duration::from_millis(100),
        back_off_max: Duration::from_secs(1),
        catch_up_after: u32::MAX,
        ..Habits::default()
    }
}

async fn serve(host: Host, is_up: Arc<AtomicBool>) -> HttpServer {
    HttpServer::start(move |request| {
        let (host, is_up) = (host.clone(), is_up.load(Ordering::SeqCst));
        Box::pin(async move {
            if is_up {
                pass(Duration::from_micros(rand::random_range(0..LATENCY_MICROS))).await;
                let answer = host.answer(request).await.map(Full::new);
                pass(Duration::from_micros(rand::random_range(0..LATENCY_MICROS))).await;
                return answer;
            }
            // As a reverse proxy in front of it would say.
            let mut response = http::Response::new(Full::default());
            *response.status_mut() = http::StatusCode::BAD_GATEWAY;
            response
        })
    })
    .await
}
