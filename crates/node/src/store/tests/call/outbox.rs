//! Calls about what was left with relays, and what is to be confirmed.

use rand::RngExt as _;
use rand::rngs::StdRng;
use restante_federation_proto::Timestamp;
use restante_relay_api::{
    ConfirmedDelivery, ConfirmedOutcome, DeliveryReceipt, MissingNumbers, hex,
};

use super::{Call, server, text};
use crate::outbox::rule::{Blame, HolderStep};
use crate::store::outbox::Vain;
use crate::store::outbox::audit::{self, ToAsk};
use crate::store::{outbox, receipts_due};

pub(super) fn told(rng: &mut StdRng, now: Timestamp) -> Call {
    let outcomes =
        [ConfirmedOutcome::Delivered, ConfirmedOutcome::Parked, ConfirmedOutcome::Waiting];
    let deliveries = (0..3).map(|_| ConfirmedDelivery {
        txn_id: rng.random_range(0..60).to_string(),
        content_sha256: hex(&[0; 32]),
        outcome: outcomes[rng.random_range(0..3)],
        relay: rng.random::<bool>().then(|| server(rng)),
        at: now,
        pdus: Default::default(),
    });
    let deliveries = deliveries.collect();
    let missing = vec![MissingNumbers { stream: "stream".to_owned(), from: 1, through: 2 }];
    let (from, receipt) = (server(rng), DeliveryReceipt { deliveries, missing });
    Call::new("a recipient tells", move |database| {
        let (from, receipt) = (from.clone(), receipt.clone());
        async move { text(outbox::told(&database, from, vec![receipt], now).await) }
    })
}

pub(super) fn asked(rng: &mut StdRng, now: Timestamp) -> Call {
    let asked = ToAsk {
        destination: server(rng),
        seq: rng.random_range(1..10),
        txn_id: "1".to_owned(),
        content_sha256: [0; 32],
        since: now,
        expires_at: None,
        missed_at: None,
    };
    let step = [HolderStep::Holds, HolderStep::Collected, HolderStep::Lost(Blame::Relays)];
    let (relay, step) = (server(rng), step[rng.random_range(0..3)]);
    Call::new("a relay answers what it holds", move |database| {
        let (relay, answers) = (relay.clone(), vec![(asked.clone(), step)]);
        async move { text(audit::answered(&database, relay, answers, now).await) }
    })
}

pub(super) fn goes(rng: &mut StdRng, now: Timestamp) -> Call {
    let (destination, seq, expires) = (server(rng), rng.random_range(1..10), rng.random_bool(0.3));
    Call::new("a copy is refused, or old ones go", move |database| {
        let destination = destination.clone();
        async move {
            if expires {
                let before = now.before(std::time::Duration::from_secs(20));
                text(outbox::expire(&database, before).await)
            } else {
                let vain = Vain::Refused("403".to_owned());
                let of = (destination, seq);
                text(outbox::sent_in_vain(&database, of, vain, (now, 0.5)).await)
            }
        }
    })
}

pub(super) fn receipts_go(rng: &mut StdRng, now: Timestamp) -> Call {
    let before = now.before(std::time::Duration::from_secs(rng.random_range(0..60)));
    Call::new("confirmations that could not be told go", move |database| async move {
        text(receipts_due::drop_old(&database, before).await)
    })
}
