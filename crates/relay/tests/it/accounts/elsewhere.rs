//! Mail that its owner has from elsewhere.

use http::Method;
use restante_relay_api::endpoints::COLLECT;
use restante_relay_api::limits::HAVE_MAX;
use restante_relay_api::{LeftState, Receipt};

use super::{ask, elsewhere, left};
use crate::harness::{TestRelay, TestServer, collect_all, texts};

#[tokio::test]
async fn what_its_owner_has_from_elsewhere_is_not_handed_over_and_counts_as_acknowledged() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let bodies = ["m0", "m1", "m2"].map(|text| a.transaction(&relay, text));
    for (n, body) in bodies.iter().enumerate() {
        a.leave(&relay, &b, &format!("t{n}"), body).await.assert_ok();
    }
    let mut request = collect_all(&relay);
    request.have = vec![elsewhere(&b, &a, "t0", &bodies[0]), elsewhere(&b, &a, "t2", &bodies[2])];
    let collected = b.collect(&relay, &request).await;
    assert_eq!((texts(&collected), collected.queued.count), (vec!["m1".to_owned()], 1));

    let asked = [left(&b, "t0", &bodies[0]), left(&b, "t1", &bodies[1])];
    assert_eq!(ask(&relay, &a, &asked).await, [LeftState::Gone, LeftState::Held]);
    let again = a.leave(&relay, &b, "t0", &bodies[0]).await;
    again.assert_ok();
    assert_eq!(Receipt::in_answer(&again.body), None, "it holds it no more");
    assert_eq!(texts(&b.collect(&relay, &collect_all(&relay)).await), ["m1"]);
    let metrics = relay.at_operators(Method::GET, "/metrics", "", "").await;
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(metrics.contains("restante_relay_acknowledged_total 2\n"), "{metrics}");
}

#[tokio::test]
async fn a_late_copy_of_what_a_registered_owner_has_is_taken_and_not_kept() {
    let relay = TestRelay::start().await;
    let (a, b, stranger) = (TestServer::new(1), TestServer::new(2), TestServer::new(3));
    b.register(&relay, &b.registration(&relay)).await.assert_ok();
    let body = a.transaction(&relay, "m");
    let mut request = collect_all(&relay);
    for (owner, holds) in [(&b, false), (&stranger, true)] {
        request.have = vec![elsewhere(owner, &a, "t", &body)];
        owner.collect(&relay, &request).await;
        let asked = [left(owner, "t", &body)];
        assert_eq!(ask(&relay, &a, &asked).await, [LeftState::Unknown], "it never came");
        let answer = a.leave(&relay, owner, "t", &body).await;
        answer.assert_ok();
        assert_eq!(Receipt::in_answer(&answer.body).is_some(), holds);
        let state = if holds { LeftState::Held } else { LeftState::Gone };
        assert_eq!(ask(&relay, &a, &asked).await, [state]);
    }
    assert!(b.collect(&relay, &collect_all(&relay)).await.envelopes.is_empty());
    let kept = stranger.collect(&relay, &collect_all(&relay)).await;
    assert_eq!(kept.envelopes.len(), 1, "for whoever is not registered nothing is remembered");
}

#[tokio::test]
async fn what_one_claims_to_have_keeps_no_mail_from_others() {
    let relay = TestRelay::start().await;
    let (a, b, hostile) = (TestServer::new(1), TestServer::new(2), TestServer::new(3));
    hostile.register(&relay, &hostile.registration(&relay)).await.assert_ok();
    let bodies = ["before", "after"].map(|text| a.transaction(&relay, text));
    a.leave(&relay, &b, "before", &bodies[0]).await.assert_ok();
    let mut request = collect_all(&relay);
    request.have =
        vec![elsewhere(&b, &a, "before", &bodies[0]), elsewhere(&b, &a, "after", &bodies[1])];
    hostile.collect(&relay, &request).await;
    a.leave(&relay, &b, "after", &bodies[1]).await.assert_ok();
    assert_eq!(texts(&b.collect(&relay, &collect_all(&relay)).await), ["before", "after"]);
}

#[tokio::test]
async fn too_much_from_elsewhere_and_malformed_hashes_are_refused_without_effect() {
    let relay = TestRelay::start().await;
    let (a, b) = (TestServer::new(1), TestServer::new(2));
    let body = a.transaction(&relay, "m");
    a.leave(&relay, &b, "t", &body).await.assert_ok();
    let mut request = collect_all(&relay);
    request.have = vec![elsewhere(&b, &a, "t", &body); HAVE_MAX + 1];
    b.collect_raw(&relay, &request).await.assert_refused(400, "M_INVALID_PARAM");
    request.have.truncate(2);
    let malformed = String::from_utf8(request.to_canonical_json()).unwrap();
    let digest = serde_json::to_string(&request.have[1]).unwrap();
    let malformed = malformed.replace(&digest, "\"AB\"");
    b.call(&relay, Method::POST, COLLECT, &malformed).await.assert_refused(400, "M_BAD_JSON");
    assert_eq!(b.collect(&relay, &collect_all(&relay)).await.queued.count, 1);
}
