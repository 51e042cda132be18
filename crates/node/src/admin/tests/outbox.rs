//! What the operator sees of what was left with relays.

use restante_relay_api::{ConfirmedDelivery, ConfirmedOutcome, DeliveryReceipt, PduResult, hex};

use super::*;
use crate::outbox::KeptCopy;
use crate::outbox::rule::{Blame, HolderStep};
use crate::store::ledger::{Ledger, Transaction};
use crate::store::outbox::audit::{self, ToAsk};
use crate::store::outbox::{self, Kept, Word};

/// Three transactions for b.test, left with r.test.
async fn three_left(site: &InboundSite) {
    let ledger = Ledger::open(site.node.database.clone(), "s".to_owned()).await.unwrap();
    for number in 1..=3_u8 {
        let (destination, txn_id) = (name("b.test"), format!("t{number}"));
        let content_sha256 = [number; 32];
        let transaction = Transaction { destination, txn_id, content_sha256 };
        let seq = ledger.enter(transaction, BEGINNING).await.unwrap().place.seq;
        let copy = KeptCopy::of(("/send/1", "X-Matrix"), b"{}", None).unwrap();
        let kept = Some(Kept { copy, bytes_max: 1000, word: Word::Counts });
        ledger.held_by((name("b.test"), seq), name("r.test"), kept, BEGINNING).await.unwrap();
    }
}

/// r.test does not know the first, time and again.
async fn first_is_lost(site: &InboundSite) {
    let ledger = Ledger::open(site.node.database.clone(), "s".to_owned()).await.unwrap();
    for minute in 0..3 {
        let since = BEGINNING.after(std::time::Duration::from_secs(minute * 60));
        ledger.held_by((name("b.test"), 1), name("r.test"), None, since).await.unwrap();
        let asked = ToAsk {
            destination: name("b.test"),
            seq: 1,
            txn_id: "t1".to_owned(),
            content_sha256: [1; 32],
            since,
            expires_at: None,
            missed_at: None,
        };
        let answers = vec![(asked, HolderStep::Lost(Blame::Relays))];
        let now = since.after(std::time::Duration::from_secs(1));
        audit::answered(&site.node.database, name("r.test"), answers, now).await.unwrap();
    }
}

async fn second_is_confirmed(site: &InboundSite) {
    let refused = PduResult { error: Some("not allowed".to_owned()), waits: false };
    let delivery = ConfirmedDelivery {
        txn_id: "t2".to_owned(),
        content_sha256: hex(&[2; 32]),
        outcome: ConfirmedOutcome::Parked,
        relay: Some(name("r.test")),
        at: BEGINNING,
        pdus: [("$e".to_owned(), refused)].into(),
    };
    let receipt = DeliveryReceipt { deliveries: vec![delivery], missing: vec![] };
    let told = outbox::told(&site.node.database, name("b.test"), vec![receipt], BEGINNING);
    told.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_outbox_shows_what_lies_where_and_what_became_of_it() {
    let site = InboundSite::with_room().await;
    three_left(&site).await;
    first_is_lost(&site).await;
    second_is_confirmed(&site).await;
    site.run_with(async |inbox| {
        let operator = Operator::of(&site, inbox).await;
        let all = operator.get("/outbox").await;
        let of_b = &all["destinations"][0];
        assert_eq!((&of_b["server_name"], &of_b["unconfirmed"]), (&json!("b.test"), &json!(2)));
        assert_eq!((&of_b["copies"], &of_b["wanted"]), (&json!(2), &json!(1)));
        assert_eq!(all["distrusted"][0]["relay"], "r.test");
        assert_eq!(all["totals"]["confirmed"], 1);

        let open = operator.get("/outbox/b.test").await;
        let numbers: Vec<_> = open.as_array().unwrap().iter().map(|line| &line["seq"]).collect();
        assert_eq!(numbers, [&json!(1), &json!(3)]);
        assert_eq!((&open[0]["relays"], &open[0]["copy"]), (&json!([]), &json!("kept")));
        assert_eq!(open[1]["relays"][0]["server_name"], "r.test");

        let rest = operator.get("/outbox/b.test?which=all&after=1&limit=1").await;
        assert_eq!(rest.as_array().unwrap().len(), 1);
        let second = &rest[0];
        assert_eq!(
            (&second["confirmed_as"], &second["copy"]),
            (&json!("parked"), &json!("not needed"))
        );
        assert_eq!(second["errors"], json!({ "count": 1, "some": { "$e": "not allowed" } }));

        let status = operator.get("/status").await;
        assert_eq!(status["distrusted"][0]["destination"], "b.test");
        operator.done(Method::PUT, "/relays/b.test/r.test", "").await;
        let relays = operator.get("/relays?server=b.test").await;
        assert!(relays[0]["distrusted_since"].is_u64(), "{relays}");
        let (_, metrics) = seen(operator.router, "/metrics").await;
        for line in [
            "restante_node_outbox_unconfirmed 2",
            "restante_node_outbox_confirmed_total 1",
            "restante_node_relays_distrusted 1",
        ] {
            assert!(metrics.lines().any(|found| found == line), "no {line} in {metrics}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_operator_says_that_a_relays_word_counts_again() {
    let site = InboundSite::with_room().await;
    three_left(&site).await;
    first_is_lost(&site).await;
    site.run_with(async |inbox| {
        let operator = Operator::of(&site, inbox).await;
        assert_eq!(operator.get("/outbox").await["distrusted"][0]["relay"], "r.test");
        operator.done(Method::POST, "/relays/b.test/r.test/trust", "").await;
        assert_eq!(operator.get("/outbox").await["distrusted"], json!([]));
    })
    .await;
}
