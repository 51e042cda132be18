//! The network side of being a Matrix server, over loopback sockets.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test that calls them")]

mod authentication;
mod client;
mod discovery;
mod server;
mod world;
