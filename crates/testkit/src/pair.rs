//! The world that most scenarios play in: two sites that share a room, and a relay that holds both's mail.

use std::time::Duration;

use crate::eventually;
use crate::meddler::Meddler;
use crate::relay::RelayProcess;
use crate::site::Site;
use crate::world::World;

/// How long a step between two servers that are online may take.
const ONLINE_DEADLINE: Duration = Duration::from_secs(60);

/// What a node waits for a relay that is down, where a test is about what comes after the wait.
const SHORT_GAP_WAIT: Duration = Duration::from_secs(3);

/// `a.test` with Alice, `b.test` with Bob. Processes go first when it is dropped, the folder last.
#[derive(Debug)]
pub struct Pair {
    /// Alice's site.
    pub a: Site,
    /// Bob's site.
    pub b: Site,
    /// The relay that holds both's mail.
    pub relay: RelayProcess,
    /// The room's id.
    pub room: String,
    /// The world.
    pub world: World,
}

impl Pair {
    /// Starts everything, and lets Bob join a room of Alice's.
    pub async fn start() -> Self {
        Self::start_in(|_, _| {}).await
    }

    /// As [`Pair::start`], where `prepare` may change what the sites will know.
    pub async fn start_in(prepare: impl FnOnce(&mut World, &RelayProcess)) -> Self {
        let mut world = World::with_sites(&["a.test", "b.test"]);
        let relay = world.start_relay("relay").await;
        world.hold_mail_of("a.test", &relay);
        world.hold_mail_of("b.test", &relay);
        prepare(&mut world, &relay);
        Self::start_sites(world, relay).await
    }

    /// As [`Pair::start`] with a second relay that holds both's mail as well.
    pub async fn start_with_second_relay() -> (Self, RelayProcess) {
        let mut world = World::with_sites(&["a.test", "b.test"]);
        let relay = world.start_relay("relay").await;
        let second = world.start_relay("second relay").await;
        for server in ["a.test", "b.test"] {
            world.hold_mail_of(server, &relay);
            world.hold_mail_of(server, &second);
        }
        (Self::start_sites(world, relay).await, second)
    }

    /// As [`Pair::start`], where `meddler` stands between the sites and the relay.
    pub async fn start_with_meddler() -> (Self, Meddler) {
        let mut world = World::with_sites(&["a.test", "b.test"]);
        let relay = world.start_relay("relay").await;
        let meddler = Meddler::in_front_of(relay.address().url).await;
        for server in ["a.test", "b.test"] {
            world.hold_mail_of_at(server, meddler.address_of(&relay));
        }
        (Self::start_sites(world, relay).await, meddler)
    }

    /// As [`Pair::start_with_meddler`], with a second relay that holds both's mail as well, and no meddler before it.
    /// Gaps are waited for no longer than it takes to see that they are.
    pub async fn start_with_meddler_and_second_relay() -> (Self, Meddler, RelayProcess) {
        let mut world = World::with_sites(&["a.test", "b.test"]);
        let relay = world.start_relay("relay").await;
        let second = world.start_relay("second relay").await;
        let meddler = Meddler::in_front_of(relay.address().url).await;
        for server in ["a.test", "b.test"] {
            world.hold_mail_of_at(server, meddler.address_of(&relay));
            world.hold_mail_of(server, &second);
        }
        world.wait_for_gaps(SHORT_GAP_WAIT);
        (Self::start_sites(world, relay).await, meddler, second)
    }

    /// Starts both sites in a world whose relays are known.
    pub async fn start_sites(mut world: World, relay: RelayProcess) -> Self {
        let a = world.start_site("a.test", "alice").await;
        let b = world.start_site("b.test", "bob").await;
        let room = share_a_room(&a, &b).await;
        Self { a, b, relay, room, world }
    }

    /// Alice sends these texts, one after the other.
    pub async fn alice_sends(&self, texts: &[String]) {
        send_all(&self.a, &self.room, texts).await;
    }

    /// Bob sends these texts, one after the other.
    pub async fn bob_sends(&self, texts: &[String]) {
        send_all(&self.b, &self.room, texts).await;
    }
}

async fn send_all(site: &Site, room: &str, texts: &[String]) {
    for text in texts {
        let sent = site.client.send_text(room, text).await;
        sent.unwrap_or_else(|error| panic!("{:?} was not sent: {error}", text));
    }
}

/// The user at `host` makes a room and invites the one at `guest`, who joins; returns when both know it.
pub async fn share_a_room(host: &Site, guest: &Site) -> String {
    let invited = [guest.client.user_id()];
    let room = host.client.create_room(&invited).await.expect("a room can be made");
    guest.client.wait_for_invite(&room, ONLINE_DEADLINE).await;
    guest.client.join(&room).await.expect("an invited user can join");
    eventually("both are in the room", ONLINE_DEADLINE, async || {
        let members = host.client.members(&room).await.expect("a member may ask for the members");
        (members.len() == 2).then_some(())
    })
    .await;
    // After a join over federation Synapse fetches the rest of the room's state in the background,
    // and only then shows the room: a server that goes offline before has not really joined.
    guest.client.wait_for_room(&room, ONLINE_DEADLINE).await;
    room
}
