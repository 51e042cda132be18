//! Checks by force that a relay keeps its promises: a load over HTTP, a history of it, a model.
//!
//! A [`Load`] deposits, collects and acknowledges from many tasks, at a relay that may be killed and moved meanwhile, and
//! notes every call with its answer and its time in a [`Recorder`]. [`verdict`] holds the history against what the promises
//! allow; a history that breaks one comes back as a [`Failure`], cut down to the calls that show it.
//!
//! The model knows no clock and no HTTP, so that it is tested on its own; times are ticks, which only say what came before what.

mod allowance;
mod check;
mod history;
mod load;
mod minimise;
mod recorder;
mod story;
mod verdict;
mod violation;

pub use allowance::{Allowance, ServerErrors};
pub use check::check;
pub use history::{
    Acknowledged, Answer, Call, Collect, Collected, Deposit, Digest, Had, Key, Op, RelayTxn, Seen,
    Tick,
};
pub use load::{Load, LoadPlan};
pub use minimise::minimise;
pub use recorder::Recorder;
pub use verdict::{Failure, Summary, verdict};
pub use violation::Violation;
