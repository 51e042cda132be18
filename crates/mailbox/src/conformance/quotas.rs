//! Room: of a mailbox, of an origin's share, of the relay.

use super::Store;
use super::fixtures::{
    ROOMY, acknowledge, expire_deposited_before, held_ids, leave, leave_all, mail, mail_at,
    mail_of, server,
};
use crate::{Deposit, Deposited, Full, MailboxLimits, Quotas, Share};

const TWO: MailboxLimits = MailboxLimits { envelopes_max: 2, bytes_max: 1 << 20 };
const TWO_OF_EACH_ORIGIN: Quotas = Quotas { origin: TWO, ..ROOMY };
const TWO_IN_ALL: Quotas = Quotas { relay: TWO, ..ROOMY };

fn from(origin: &str, mail: Deposit) -> Deposit {
    Deposit { origin: server(origin), ..mail }
}

async fn outcome(store: &Store, mail: Deposit, quotas: Quotas) -> Deposited {
    store.deposit(mail, quotas).await.unwrap()
}

async fn shares(store: &Store, recipient: &str) -> Vec<(String, u64, u64)> {
    let shares = store.shares(&server(recipient), None, 100).await.unwrap();
    shares
        .into_iter()
        .map(|share| (share.origin.to_string(), share.envelopes, share.bytes))
        .collect()
}

pub(super) async fn share_full(store: Store) {
    let ids = leave_all(&store, &["1", "2"].map(|txn| mail("b.example", txn))).await;

    let refused = outcome(&store, mail("b.example", "3"), TWO_OF_EACH_ORIGIN).await;
    assert_eq!(refused, Deposited::Full(Full::Share));
    let other = from("z.example", mail("b.example", "3"));
    let taken = outcome(&store, other, TWO_OF_EACH_ORIGIN).await;
    assert!(matches!(taken, Deposited::Stored(_)), "{taken:?}");
    let elsewhere = outcome(&store, mail("c.example", "3"), TWO_OF_EACH_ORIGIN).await;
    assert!(matches!(elsewhere, Deposited::Stored(_)), "{elsewhere:?}");

    acknowledge(&store, "b.example", &ids[..1]).await;
    let again = outcome(&store, mail("b.example", "3"), TWO_OF_EACH_ORIGIN).await;
    assert!(matches!(again, Deposited::Stored(_)), "{again:?}");
}

pub(super) async fn share_of_bytes(store: Store) {
    let limits = MailboxLimits { envelopes_max: 10, bytes_max: 50 };
    let quotas = Quotas { origin: limits, ..ROOMY };
    leave(&store, mail_of("b.example", "1", 30)).await;

    let refused = outcome(&store, mail_of("b.example", "2", 21), quotas).await;
    assert_eq!(refused, Deposited::Full(Full::Share));
    let taken = outcome(&store, mail_of("b.example", "3", 20), quotas).await;
    assert!(matches!(taken, Deposited::Stored(_)), "{taken:?}");
}

pub(super) async fn relay_full(store: Store) {
    let id = leave(&store, mail("b.example", "1")).await;
    leave(&store, mail("c.example", "2")).await;

    for recipient in ["b.example", "d.example"] {
        let refused = outcome(&store, mail(recipient, "3"), TWO_IN_ALL).await;
        assert_eq!(refused, Deposited::Full(Full::Relay), "{recipient}");
    }
    assert_eq!(held_ids(&store, "b.example").await, [id]);
    assert_eq!(store.list(None, 10).await.unwrap().len(), 2);
    acknowledge(&store, "b.example", &[id]).await;
    let taken = outcome(&store, mail("d.example", "3"), TWO_IN_ALL).await;
    assert!(matches!(taken, Deposited::Stored(_)), "{taken:?}");
}

pub(super) async fn shares_are_counted(store: Store) {
    let (one, two) = (mail_at("b.example", "1", 1000), mail_at("b.example", "2", 2000));
    let three = from("c.example", mail_at("b.example", "3", 3000));
    let bytes = [one.bytes(), two.bytes(), three.bytes()];
    let ids = leave_all(&store, &[one, two, three]).await;
    let a = |count, bytes| ("a.example".to_owned(), count, bytes);
    let c = ("c.example".to_owned(), 1, bytes[2]);

    assert_eq!(shares(&store, "b.example").await, [a(2, bytes[0] + bytes[1]), c.clone()]);
    assert_eq!(store.shares(&server("b.example"), None, 1).await.unwrap().len(), 1);
    let page = store.shares(&server("b.example"), Some(&server("a.example")), 1).await.unwrap();
    assert_eq!(page, [Share { origin: server("c.example"), envelopes: 1, bytes: bytes[2] }]);
    expire_deposited_before(&store, 1500).await;
    assert_eq!(shares(&store, "b.example").await, [a(1, bytes[1]), c.clone()]);
    acknowledge(&store, "b.example", &ids).await;
    assert_eq!(shares(&store, "b.example").await, []);
    assert_eq!(shares(&store, "nobody.example").await, []);
}
