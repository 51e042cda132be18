//! The node: stands beside one homeserver, leaves mail at relays and collects it.
//!
//! ARCHITECTURE.md has the map. Rules (`delivery/`, `inbox/order.rs`, `inbox/window.rs`) are pure; the rest carries them out.

mod admin;
mod answer;
mod background;
mod backoff;
mod comeback;
mod config;
mod delivery;
mod destinations;
mod homeserver;
mod inbound;
mod inbox;
mod left_call;
mod losses;
mod metrics;
mod node;
mod outbound;
mod outbox;
mod own_keys;
mod own_record;
mod passed;
mod registration;
mod relay_book;
mod relay_call;
mod relay_records;
mod reload;
mod restart;
mod retriever;
mod service;
mod site;
mod stand_in;
mod store;
#[cfg(test)]
mod test_inbound;
#[cfg(test)]
mod test_site;
mod waking;
mod witness;

pub use config::{
    AdminSection, CollectSection, DeliverySection, InboundSection, InboxSection, MailboxSection,
    NodeConfig, OutboundSection, OutboxSection, RecordsSection,
};
pub use homeserver::HomeserverUrlError;
pub use inbound::{PassedPath, PassedPathError};
pub use node::{Addresses, Node, StartError};
pub use own_record::is_private_way;
pub use reload::RELOADED_KEYS;
pub use restante_operators::{Token, TokenError};
pub use service::{Doors, Service, ServiceParts};
pub use store::SCHEMA;
