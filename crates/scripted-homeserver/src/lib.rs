//! A homeserver for tests: rooms as graphs, the habits of Synapse that lose mail, and no database or socket.
//!
//! [`Homeserver`] is state and rules alone. [`Host`] carries them out over an `Exchange`: it answers other servers,
//! asks them for keys and missing events, and sends what its users write. To serve it over HTTP, hand each request to
//! [`Host::answer`].

mod acl;
mod answers;
mod gaps;
mod habits;
mod homeserver;
mod host;
mod known_keys;
mod outbox;
mod pdu;
mod request;
mod room;
mod staging;
mod transactions;

pub use habits::Habits;
pub use homeserver::{Homeserver, Seen, TakenEdu};
pub use host::{Host, HostParts};
pub use pdu::Pdu;
pub use room::{Room, RoomError};
