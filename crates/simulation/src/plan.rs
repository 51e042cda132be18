//! What happens in one run: who there is, and what is done to them and when. Drawn from a seed, and plain to read.

mod draw;

use std::time::Duration;

use restante_federation_proto::RoomVersion;

/// One run.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What everything else was drawn from, and what the network draws from.
    pub seed: u64,
    /// Homeservers.
    pub servers: Vec<ServerPlan>,
    /// Relays.
    pub relays: Vec<RelayPlan>,
    /// Rooms.
    pub rooms: Vec<RoomPlan>,
    /// Of a thousand messages so many are lost on their way.
    pub loss_permille: u64,
    /// The longest that a message is on its way.
    pub latency_max: Duration,
    /// What is done, in the order of time.
    pub steps: Vec<(Duration, Step)>,
    /// When it ends, and everything is mended.
    pub mended_at: Duration,
    /// How it ends.
    pub ending: Ending,
}

/// One homeserver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerPlan {
    /// Its name.
    pub name: String,
    /// Whether a node stands beside it.
    pub has_node: bool,
    /// By how much its clock is wrong, milliseconds.
    pub clock_error_ms: i64,
    /// The relays that hold its mail, by their place in [`Plan::relays`].
    pub relays: Vec<usize>,
}

/// One relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayPlan {
    /// Its name.
    pub name: String,
    /// What it does.
    pub manner: Manner,
    /// By how much its clock is wrong, milliseconds.
    pub clock_error_ms: i64,
}

/// What a relay does with mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// What it promises.
    Honest,
    /// Changes what people wrote.
    AltersEvents,
    /// Changes messages to devices.
    AltersEdus,
    /// Never gives some of what it took.
    Withholds,
    /// Gives what was acknowledged again.
    Repeats,
    /// Gives one envelope in the place of another.
    Reorders,
    /// Gives nothing for minutes.
    Delays,
    /// Says that it took what it did not keep.
    Swallows,
}

/// One room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomPlan {
    /// Its id.
    pub id: String,
    /// Its version.
    pub version: RoomVersion,
    /// The servers in it, by their place in [`Plan::servers`].
    pub members: Vec<usize>,
}

/// Something that happens. Servers and relays are named by their places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A user writes in a room; with `fork`, after an older event than the newest.
    Say {
        /// Who.
        server: usize,
        /// Where.
        room: usize,
        /// Whether not after the newest.
        fork: bool,
    },
    /// A user writes to another's devices.
    ToDevice {
        /// Who.
        server: usize,
        /// To whom.
        to: usize,
    },
    /// A user types.
    Typing {
        /// Who.
        server: usize,
        /// To whom.
        to: usize,
    },
    /// Homeserver and node stop dead.
    ServerOff(usize),
    /// They start again.
    ServerOn(usize),
    /// Only the homeserver stops.
    HomeserverOff(usize),
    /// It starts again.
    HomeserverOn(usize),
    /// The node stops dead and starts again at once.
    NodeRestart(usize),
    /// Only the node stops.
    NodeOff(usize),
    /// It starts again.
    NodeOn(usize),
    /// A relay stops dead.
    RelayOff(usize),
    /// It starts again with what it holds.
    RelayOn(usize),
    /// Two machines can't reach each other.
    Cut(String, String),
    /// They can again.
    Join(String, String),
    /// A server's clock is set, wrong by so many milliseconds.
    SetClock(usize, i64),
}

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Everybody is there.
    Everybody,
    /// This server goes off when all else is mended, and does not come back.
    Without(usize),
}
