//! n: A and B come back at once, and A keeps writing directly.

use restante_testkit::Pair;

use crate::{MAIL_DEADLINE, numbered};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relayed_and_direct_mail_make_one_timeline_when_both_come_back_at_once() {
    let mut pair = Pair::start().await;
    let texts = numbered("message", 40);
    let (left, direct) = texts.split_at(15);

    pair.b.go_offline().await;
    pair.alice_sends(left).await;
    pair.b.mailbox_at(&pair.relay).wait_for_texts(left.len(), MAIL_DEADLINE).await;
    pair.a.go_offline().await;

    let Pair { a, b, room, .. } = &mut pair;
    let write_on = async {
        a.come_online().await;
        for text in direct {
            a.client.send_text(room, text).await.expect("a member may speak");
        }
    };
    tokio::join!(write_on, b.come_online());

    let read = pair.b.client.wait_for_texts(&pair.room, texts.len(), MAIL_DEADLINE).await;
    assert_eq!(read, texts);
    pair.b.mailbox_at(&pair.relay).wait_until_empty(MAIL_DEADLINE).await;
    assert_eq!(pair.b.client.texts(&pair.room).await, texts, "nothing arrives twice");
    assert_eq!(pair.b.homeserver.rejected_events(), 0);
}
