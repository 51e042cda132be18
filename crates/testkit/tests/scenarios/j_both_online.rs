//! j: both online.

use restante_testkit::Pair;

use crate::{MAIL_DEADLINE, numbered};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_between_servers_that_are_online_goes_direct_and_no_relay_is_asked_to_hold_any() {
    let pair = Pair::start().await;
    pair.alice_sends(&numbered("from A", 3)).await;
    pair.b.client.wait_for_texts(&pair.room, 3, MAIL_DEADLINE).await;
    pair.bob_sends(&numbered("from B", 3)).await;

    let said = [numbered("from A", 3), numbered("from B", 3)].concat();
    assert_eq!(pair.a.client.wait_for_texts(&pair.room, 6, MAIL_DEADLINE).await, said);
    assert_eq!(pair.b.client.wait_for_texts(&pair.room, 6, MAIL_DEADLINE).await, said);
    assert!(pair.a.direct_transactions() > 0 && pair.b.direct_transactions() > 0);
    assert_eq!(pair.relay.deposits_asked(), 0);
}
