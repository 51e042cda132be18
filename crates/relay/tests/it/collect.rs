//! Collecting in batches, acknowledging, waiting.

use std::time::Duration;

use restante_federation_proto::{Clock, Timestamp};
use restante_relay_api::endpoints::MORE_AFTER_HEADER;
use restante_relay_api::limits::ACKNOWLEDGEMENTS_MAX;
use restante_relay_api::{CollectAcknowledgement, CollectResponse};

use crate::harness::{TestRelay, TestServer, acknowledge_all, collect_all, texts};

async fn relay_with_mail(count: usize) -> (TestRelay, TestServer, TestServer) {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    for n in 0..count {
        let body = a.transaction(&relay, &format!("m{n}"));
        a.leave(&relay, &b, &format!("t{n}"), &body).await.assert_ok();
    }
    (relay, a, b)
}

#[tokio::test]
async fn the_cursor_pages_through_the_mailbox_without_acknowledging() {
    let (relay, _, b) = relay_with_mail(5).await;
    let mut request = collect_all(&relay);
    request.limit = 2;
    let mut seen = Vec::new();
    loop {
        let page = b.collect(&relay, &request).await;
        let Some(last) = page.envelopes.last() else { break };
        request.after = last.id;
        seen.extend(texts(&page));
    }
    assert_eq!(seen, ["m0", "m1", "m2", "m3", "m4"]);
    assert_eq!(texts(&b.collect(&relay, &collect_all(&relay)).await).len(), 5);
}

#[tokio::test]
async fn the_head_of_a_part_says_where_it_ends_and_that_of_the_last_one_does_not() {
    let (relay, _, b) = relay_with_mail(3).await;
    let mut request = collect_all(&relay);
    request.limit = 2;
    let answer = b.collect_raw(&relay, &request).await;
    let part = CollectResponse::parse(&answer.body).unwrap();
    let last = part.envelopes.last().unwrap().id;
    assert_eq!(answer.headers[MORE_AFTER_HEADER], last.to_string());

    request.acknowledge = part
        .envelopes
        .iter()
        .map(|one| CollectAcknowledgement { id: one.id, sha256: None })
        .collect();
    request.after = last;
    let answer = b.collect_raw(&relay, &request).await;
    assert_eq!(texts(&CollectResponse::parse(&answer.body).unwrap()), ["m2"]);
    assert!(!answer.headers.contains_key(MORE_AFTER_HEADER));
}

#[tokio::test]
async fn a_cursor_beyond_every_id_finds_nothing() {
    let (relay, _, b) = relay_with_mail(1).await;
    let mut request = collect_all(&relay);
    for beyond in [(1 << 53) - 1, 1 << 53, u64::MAX] {
        request.after = beyond;
        assert!(b.collect(&relay, &request).await.envelopes.is_empty(), "{beyond}");
    }
}

#[tokio::test]
async fn at_least_one_envelope_comes_above_the_byte_limit() {
    let (relay, _, b) = relay_with_mail(3).await;
    let mut request = collect_all(&relay);
    request.max_bytes = 1;
    assert_eq!(texts(&b.collect(&relay, &request).await), ["m0"]);
}

#[tokio::test]
async fn acknowledging_is_independent_of_the_cursor_and_forgives_unknown_ids() {
    let (relay, _, b) = relay_with_mail(2).await;
    let collected = b.collect(&relay, &collect_all(&relay)).await;
    let mut request = collect_all(&relay);
    request.after = u64::from(u32::MAX) << 20;
    request.acknowledge = acknowledge_all(&collected);
    request.acknowledge.push(CollectAcknowledgement { id: 7, sha256: None });
    request.acknowledge.push(CollectAcknowledgement { id: u64::MAX, sha256: None });
    assert_eq!(b.collect(&relay, &request).await.queued.count, 0);
}

#[tokio::test]
async fn an_acknowledgement_of_other_content_removes_nothing() {
    let (relay, _, b) = relay_with_mail(1).await;
    let collected = b.collect(&relay, &collect_all(&relay)).await;
    let mut request = collect_all(&relay);
    let id = collected.envelopes[0].id;
    request.acknowledge = vec![CollectAcknowledgement { id, sha256: Some("0".repeat(64)) }];
    assert_eq!(b.collect(&relay, &request).await.queued.count, 1);
}

#[tokio::test]
async fn a_strangers_acknowledgement_touches_only_the_strangers_own_mailbox() {
    let (relay, _, b) = relay_with_mail(1).await;
    let stranger = TestServer::new(9);
    let collected = b.collect(&relay, &collect_all(&relay)).await;
    let mut request = collect_all(&relay);
    request.acknowledge = acknowledge_all(&collected);
    let answer = stranger.collect(&relay, &request).await;
    assert!(answer.envelopes.is_empty());
    assert_eq!(texts(&b.collect(&relay, &collect_all(&relay)).await), ["m0"]);
}

#[tokio::test]
async fn a_waiting_collect_is_woken_by_mail() {
    let (relay, a, b) = relay_with_mail(0).await;
    let mut request = collect_all(&relay);
    request.wait_ms = 50_000;
    let deposit = async {
        let body = a.transaction(&relay, "at last");
        a.leave(&relay, &b, "t", &body).await.assert_ok();
    };
    let (collected, ()) = tokio::join!(b.collect(&relay, &request), deposit);
    assert_eq!(texts(&collected), ["at last"]);
}

#[tokio::test]
async fn a_stopping_relay_answers_those_who_wait() {
    let (relay, _, b) = relay_with_mail(1).await;
    let collected = b.collect(&relay, &collect_all(&relay)).await;
    let mut request = collect_all(&relay);
    request.acknowledge = acknowledge_all(&collected);
    request.wait_ms = 50_000;
    // Once its acknowledgement shows, the collect is at the relay, and waits.
    let stop = async {
        while b.relay_txn(&relay, 0).await["entries_queued"] == true {}
        relay.stop_softly();
    };
    let (answer, ()) = tokio::join!(b.collect(&relay, &request), stop);
    assert!(answer.envelopes.is_empty());
}

#[tokio::test]
async fn a_request_signed_long_ago_is_refused_with_the_relays_time() {
    let (relay, _, b) = relay_with_mail(1).await;
    let now = relay.clock.now();
    for signed_at in
        [now.before(Duration::from_secs(61)), now.after(Duration::from_secs(61)), Timestamp::EPOCH]
    {
        let mut request = collect_all(&relay);
        request.signed_at = signed_at;
        let refused = b.collect_raw(&relay, &request).await;
        refused.assert_refused(403, "M_FORBIDDEN");
        assert_eq!(refused.json()["now"], now.as_millis());
    }
}

#[tokio::test]
async fn too_many_acknowledgements_and_malformed_hashes_are_refused_without_effect() {
    let (relay, _, b) = relay_with_mail(1).await;
    let collected = b.collect(&relay, &collect_all(&relay)).await;
    let mut request = collect_all(&relay);
    request.acknowledge = vec![acknowledge_all(&collected).remove(0); 1001];
    b.collect_raw(&relay, &request).await.assert_refused(400, "M_INVALID_PARAM");
    request.acknowledge.truncate(1);
    let (short, long) = ("0".repeat(62), "0".repeat(66));
    let (upper, signs) = ("A".repeat(64), "+1".repeat(32));
    for malformed in ["xyz", &short, &long, &upper, &signs, &"ä".repeat(32)] {
        request.acknowledge[0].sha256 = Some(malformed.to_owned());
        b.collect_raw(&relay, &request).await.assert_refused(400, "M_INVALID_PARAM");
    }
    assert_eq!(b.collect(&relay, &collect_all(&relay)).await.queued.count, 1);
}

#[tokio::test]
async fn a_thousand_acknowledgements_are_taken_at_once() {
    let (relay, _, b) = relay_with_mail(1).await;
    let collected = b.collect(&relay, &collect_all(&relay)).await;
    let mut request = collect_all(&relay);
    request.acknowledge = vec![acknowledge_all(&collected).remove(0); ACKNOWLEDGEMENTS_MAX];
    assert_eq!(b.collect(&relay, &request).await.queued.count, 0);
}
