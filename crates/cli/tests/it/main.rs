//! The program as an operator's machine sees it.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test that calls them")]
#![cfg(target_os = "linux")]

mod node_doctor;
mod ready;
mod relay;
mod reload;
mod sockets;
mod systemd;
