//! Whole-system tests: real homeservers, relays and nodes as processes, links that can be cut.
//!
//! A [`World`] is one test's corner of the machine: a folder, the links between its servers, its relays. A [`Site`] in
//! it is a homeserver with its node and a user's client, which can go offline and come back. Where the harness can't go
//! on it panics, so that the test that uses it fails there, with the tails of its processes' logs.
#![expect(clippy::panic, reason = "a harness that cannot go on fails the test that uses it")]

mod client;
mod clock;
mod deadline;
mod forwarder;
mod homeserver;
mod http_probe;
mod http_server;
mod letter;
mod lies;
mod link;
mod mailbox;
mod meddler;
mod node;
mod pair;
mod ports;
mod process;
mod relay;
mod signing;
mod site;
mod stock_site;
mod stranger;
mod web_site;
mod world;

pub use client::{Client, ClientError, Event};
pub use deadline::eventually;
pub use homeserver::{Homeserver, HomeserverPlan, OldKey, OutboundHook};
pub use http_server::{Answer, HttpServer};
pub use letter::Letter;
pub use link::Link;
pub use mailbox::MailboxView;
pub use meddler::Meddler;
pub use node::{Finding, NodePlan, NodeProcess};
pub use pair::{Pair, share_a_room};
pub use ports::Port;
pub use process::{Process, Program};
pub use relay::{Onward, RelayAddress, RelayPlan, RelayProcess, Serves};
pub use site::Site;
pub use stock_site::StockSite;
pub use stranger::Stranger;
pub use web_site::WebSite;
pub use world::World;
