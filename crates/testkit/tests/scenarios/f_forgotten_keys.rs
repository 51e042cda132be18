//! f: B's memory of A's keys is emptied before it comes back, A offline.

use restante_testkit::Pair;

use crate::{MAIL_DEADLINE, numbered};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_is_delivered_when_the_relay_vouches_for_a_key_that_all_of_b_forgot() {
    let mut pair = Pair::start_in(|world, relay| world.trust_as_notary(relay)).await;
    leave_mail(&mut pair).await;
    pair.b.homeserver.forget_keys();
    pair.b.node.forget_keys();
    mail_arrives(&mut pair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_is_delivered_when_the_node_remembers_a_key_that_its_homeserver_forgot() {
    let mut pair = Pair::start().await;
    leave_mail(&mut pair).await;
    pair.b.homeserver.forget_keys();
    mail_arrives(&mut pair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_is_delivered_when_the_homeservers_database_vouches_for_a_key_that_the_node_forgot() {
    let mut pair = Pair::start().await;
    leave_mail(&mut pair).await;
    pair.b.node.forget_keys();
    mail_arrives(&mut pair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_is_delivered_when_only_events_that_b_holds_prove_a_key_that_all_of_b_forgot() {
    let mut pair = Pair::start().await;
    leave_mail(&mut pair).await;
    pair.b.homeserver.forget_keys();
    pair.b.node.forget_keys();
    mail_arrives(&mut pair).await;
}

async fn leave_mail(pair: &mut Pair) {
    pair.b.go_offline().await;
    pair.alice_sends(&numbered("message", 3)).await;
    pair.b.mailbox_at(&pair.relay).wait_for_texts(3, MAIL_DEADLINE).await;
    pair.a.go_offline().await;
}

async fn mail_arrives(pair: &mut Pair) {
    pair.b.come_online().await;
    let read = pair.b.client.wait_for_texts(&pair.room, 3, MAIL_DEADLINE).await;
    assert_eq!(read, numbered("message", 3));
}
