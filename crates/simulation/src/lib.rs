//! Relays, nodes and scripted homeservers in virtual time, with a seed: what goes wrong once goes wrong again.
//!
//! [`run`] draws a [`Plan`] from a seed, plays it on one thread, and checks the promises of ARCHITECTURE.md at the end.
//! Everything that is left to chance comes from the seed, every wait is virtual, and what happened is told as a story.

mod chance;
mod checks;
mod clock;
mod copies;
mod lies;
mod logs;
mod machine;
mod network;
mod panics;
mod plan;
mod relay;
mod run;
mod shrink;
mod story;
mod wire;
mod world;

pub use network::Sabotage;
pub use plan::{Ending, Manner, Plan, RelayPlan, RoomPlan, ServerPlan, Step};
pub use run::{Options, Outcome, run, run_plan};
pub use shrink::shrink;
