//! What our own outgoing relays need not deliver any more.

use restante_relay_api::LeftRequest;

use super::*;
use crate::relay_book::Outgoing as OutgoingRelay;

const DONE: Reply = Reply::Json(200, r#"{"states":[]}"#);
const FAILED: Reply = Reply::Json(500, r#"{"errcode":"M_UNKNOWN","error":"it crashes"}"#);

/// A node with the outgoing relay o.test, which took these for b.test, that has no relay.
async fn node_that_left(txn_ids: &[&str]) -> Node {
    let node = Node::with_relays(&[]).await;
    node.site.relays.add(name(OWN_NAME), Peer::from(name("o.test"))).await.unwrap();
    node.site.relays.note_outgoing(&name("o.test"), OutgoingRelay::Yes);
    node.answers("o.test", [TAKEN]);
    for txn_id in txn_ids {
        assert_eq!(node.send(txn_id).await.0, 200);
    }
    node.answers("o.test", [DONE]);
    node
}

/// What o.test was told so far.
fn told(node: &Node) -> Vec<LeftRequest> {
    let seen = node.site.exchange.seen_by(&name("o.test"));
    let left = seen.into_iter().filter(|seen| seen.target == LEFT);
    let requests = left.map(|seen| serde_json::from_slice::<LeftRequest>(&seen.body).unwrap());
    requests.filter(|request| !request.withdraw.is_empty()).collect()
}

fn txn_ids(requests: &[LeftRequest]) -> Vec<&str> {
    let withdrawn = requests.iter().flat_map(|request| &request.withdraw);
    withdrawn.map(|mail| mail.txn_id.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_its_recipient_confirmed_is_taken_back_from_our_outgoing_relays() {
    let node = node_that_left(&["1", "2"]).await;
    let recipient = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(told(&node).is_empty(), "nothing has arrived");
        node.b_tells(confirmed("1", None)).await;
        node.site.bells.told_by(&node.b);
    };
    node.site.run(async { tokio::join!(node.working(10), recipient) }).await;
    assert_eq!(txn_ids(&told(&node)), ["1"]);
    assert_eq!(told(&node)[0].withdraw[0].destination, node.b);

    // Also after a restart it is told once.
    node.work(10).await;
    assert_eq!(txn_ids(&told(&node)), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_directly_after_all_is_taken_back_from_our_outgoing_relays() {
    let node = node_that_left(&["1", "2"]).await;
    node.site.relays.add(name(OWN_NAME), Peer::from(name("keeps.test"))).await.unwrap();
    node.answers("b.test", [Reply::Json(200, r#"{"pdus":{}}"#)]);
    // The homeserver did not hear the first answer.
    node.site.destinations.answered(&node.b).await;
    assert_eq!(node.send("1").await.0, 200);

    // What was entered before the start is found as well.
    node.work(3).await;

    assert_eq!(txn_ids(&told(&node)), ["1"]);
    assert!(!node.targets("keeps.test").contains(&LEFT.to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_could_not_be_told_is_told_later_by_its_own_clock() {
    let node = node_that_left(&["1"]).await;
    let other_time = Reply::Json(
        400,
        r#"{"errcode":"M_INVALID_PARAM","error":"look at your clock","now":1700001000000}"#,
    );
    node.answers("o.test", [FAILED, other_time, DONE]);
    node.b_tells(confirmed("1", None)).await;

    node.work(10).await;
    assert_eq!(told(&node).len(), 1, "it is left alone for a while");
    node.work(1).await;
    let told_again = told(&node);
    assert_eq!(told_again.len(), 3, "after a restart it is tried at once");
    let theirs = Timestamp::from_millis(1_700_001_000_000);
    assert!(theirs.since(told_again[1].signed_at) > Duration::from_secs(60));
    assert!(theirs.since(told_again[2].signed_at) < Duration::from_secs(5));
    node.work(60).await;
    assert_eq!(told(&node).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_relay_is_told_again_and_again_until_it_answers() {
    let node = node_that_left(&["1"]).await;
    node.answers("o.test", [FAILED, FAILED, DONE]);
    node.b_tells(confirmed("1", None)).await;

    node.work(200).await;

    assert_eq!(told(&node).len(), 3);
}
