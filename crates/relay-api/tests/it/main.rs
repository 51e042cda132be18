//! The contract between relays and nodes, written and read back.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on stops where it stands"
)]

mod capsule;
mod collect;
mod deposit_body;
mod endpoints;
mod limits;
mod proof;
mod relay_record;
mod waybill;

use restante_federation_proto::{ServerName, SigningKey};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed("ed25519:a_1".parse().unwrap(), &[seed; 32])
}

fn server(name: &str) -> ServerName {
    name.parse().unwrap()
}
