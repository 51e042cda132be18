//! Whole-system scenarios: real homeservers, nodes and relays, real clients.
//!
//! Each runs in a world of its own, with the product's default settings but for addresses, routes and relays.

mod a_offline_server_gets_its_mail;
mod aa_by_invitation;
mod ab_relays_that_nobody_named;
mod ac_an_app_with_an_access_token;
mod ad_relay_lost_its_disk;
mod ae_sender_side_relay;
mod af_encrypted_room;
mod ag_join_through_a_third;
mod ah_back_and_awake;
mod ai_four_servers;
mod b_never_online_together;
mod c_three_hundred_messages;
mod d_two_relays;
mod e_killed_halfway;
mod f2_stranger;
mod f_forgotten_keys;
mod g_to_device;
mod h_lying_relay;
mod harness;
mod i_calls_that_cannot_be_relayed;
mod j_both_online;
#[cfg(target_os = "linux")]
mod l_clock_ten_days_ahead;
mod m_gap_in_one_room;
mod mail;
mod measured;
mod n_both_come_back;
mod o_sender_restarts;
mod p_server_without_a_node;
mod q_thousand_messages;
mod r_server_acl;
mod reverse_proxies;
mod s_ten_falls;
mod t_join_in_progress;
mod u_rooms_of_all_kinds;
mod v_state_of_yesterday;
mod w_key_changed;
#[cfg(target_os = "linux")]
mod x_keys_of_yesterday;
mod y_grown_body;
mod z_without_a_proof;

use std::time::Duration;

/// How long mail may take from one step to the next on a loaded machine; on an idle one it is seconds.
const MAIL_DEADLINE: Duration = Duration::from_secs(90);

/// How long hundreds of messages may take, or a thousand: Synapse persists 30 to 40 a second on an idle machine.
const BULK_DEADLINE: Duration = Duration::from_secs(150);

/// `PREFIX 1` to `PREFIX COUNT`.
fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("{prefix} {number}")).collect()
}
