//! Whole-system scenarios: real homeservers, nodes and relays, real clients.
//!
//! Each runs in a world of its own, with the product's default settings but for addresses, routes and relays.

mod a_offline_server_gets_its_mail;
mod b_never_online_together;
mod c_three_hundred_messages;
mod f2_stranger;
mod f_forgotten_keys;
mod g_to_device;
mod harness;
mod i_calls_that_cannot_be_relayed;
mod j_both_online;

use std::time::Duration;

/// How long mail may take from one step to the next on a loaded machine; on an idle one it is seconds.
const MAIL_DEADLINE: Duration = Duration::from_secs(90);

/// `PREFIX 1` to `PREFIX COUNT`.
fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("{prefix} {number}")).collect()
}
