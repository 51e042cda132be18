//! The operators' door of a program: is it alive, is it ready, what has it counted, and commands behind a token.
//!
//! [`Door::router`] has all routes, and an [`Entrance`] is where they are open. What the door shows is the program's: its [`Condition`]s, its [`Gauges`], its
//! [`Routes`] and their OpenAPI document.

mod adjustable;
mod answer;
mod bearer;
mod disk;
mod door;
mod durations;
mod entrance;
mod hosts;
mod log;
mod metrics;
mod openapi;
mod page;
mod readiness;
mod reload;
mod routes;
mod token;

pub use adjustable::Adjustable;
pub use answer::{
    Refusal, bad_request, conflict, done, json, json_body, not_found, shown, stopped_on_the_way,
    unavailable,
};
pub use bearer::{Admission, OtherTokens};
pub use disk::free_disk_bytes;
pub use door::{BASE, Door};
pub use durations::RequestDurations;
pub use entrance::{Entrance, SOCKET_FILE};
pub use log::LogSection;
pub use metrics::{Gauges, Metrics, set_total};
pub use openapi::{RefusalBody, tidy, undocumented};
pub use page::{Page, PageQuery, PageQueryError};
pub use readiness::{Condition, Readiness, ReadyReport, Unmet, UnmetCondition};
pub use reload::{Apply, ConfigSource, FreshConfig, Reload, ReloadReport, Reloader, reload_answer};
pub use routes::{Endpoint, Routes};
pub use token::{Token, TokenError};
