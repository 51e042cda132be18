use restante_relay_api::endpoints::{mailbox_user_id, send_relay_target};

use crate::server;

#[test]
fn a_deposit_goes_to_the_mailbox_of_a_user_id_in_dendrites_spelling() {
    assert_eq!(mailbox_user_id(&server("b.example:8448")), "@restante:b.example:8448");
    assert_eq!(
        send_relay_target("t/1 %", &server("[::1]:80")).as_str(),
        "/_matrix/federation/v1/send_relay/t%2F1%20%25/@restante:%5B::1%5D:80"
    );
}
