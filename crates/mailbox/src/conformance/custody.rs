//! The operator's hand on mailboxes.

use super::Store;
use super::fixtures::{
    EVERYTHING, THREE_ENVELOPES, TIME_TO_LIVE, acknowledge, deposit, held, held_ids, leave,
    leave_all, losses, mail, mail_at, server, summary, time,
};
use crate::{
    Condition, Deposit, Deposited, Depth, Due, Expired, Found, HOLD_GRACE, Hold, Imported,
    LossKind, Selection, Totals,
};

async fn expire(store: &Store, millis: u64) -> Expired {
    store.expire(Due { now: time(millis), remembered_from: time(0) }, 10).await.unwrap()
}

pub(super) async fn hold(store: Store) {
    let ids = leave_all(&store, &["1", "2"].map(|txn| mail("b.example", txn))).await;
    let recipient = server("b.example");

    assert_eq!(store.hold(&recipient).await.unwrap(), Found::Mailbox);
    assert_eq!(summary(&store, "b.example").await.hold, Hold::Held);
    assert_eq!(held(&store, "b.example").await, []);
    let third = leave(&store, mail("b.example", "3")).await;
    assert_eq!(store.depth(&recipient).await.unwrap().count, 3);
    assert_eq!(acknowledge(&store, "b.example", &ids[..1]).await, 1);

    assert_eq!(store.release(&recipient).await.unwrap(), Found::Mailbox);
    assert_eq!(held_ids(&store, "b.example").await, [ids[1], third]);
    assert_eq!(summary(&store, "b.example").await.hold, Hold::Released);
    assert_eq!(store.hold(&server("nobody.example")).await.unwrap(), Found::NoMailbox);
    assert_eq!(store.release(&server("nobody.example")).await.unwrap(), Found::NoMailbox);
}

pub(super) async fn held_mail_stays(store: Store) {
    let id = leave(&store, mail_at("b.example", "1", 1000)).await;
    leave(&store, mail_at("c.example", "1", 1000)).await;
    store.hold(&server("b.example")).await.unwrap();
    let now = time(5000).after(TIME_TO_LIVE);

    let expired = expire(&store, now.as_millis()).await;
    assert_eq!(expired, Expired { envelopes: 1, prolonged: 1, ..Expired::default() });
    assert_eq!(expire(&store, now.as_millis()).await, Expired::default());

    store.release(&server("b.example")).await.unwrap();
    assert_eq!(held_ids(&store, "b.example").await, [id]);
    let later = now.after(HOLD_GRACE);
    assert_eq!(expire(&store, later.as_millis()).await, Expired::default());
    assert_eq!(expire(&store, later.as_millis() + 1).await.envelopes, 1);
}

pub(super) async fn drop_all(store: Store) {
    leave_all(&store, &["1", "2", "3"].map(|txn| mail("b.example", txn))).await;
    let other = leave(&store, mail("c.example", "1")).await;
    let recipient = server("b.example");

    let dropped = store.drop_mail(&recipient, Selection::All, time(9000)).await.unwrap();

    assert_eq!(dropped, 3);
    let mailbox = summary(&store, "b.example").await;
    assert_eq!((mailbox.depth, mailbox.dropped_total), (Depth::default(), 3));
    assert_eq!((mailbox.acknowledged_total, mailbox.expired_total), (0, 0));
    let lost = losses(&store, "b.example").await;
    assert_eq!((lost.len(), lost[0].kind, lost[0].count), (1, LossKind::Dropped, 3));
    assert_eq!(held_ids(&store, "c.example").await, [other]);
    leave(&store, mail("b.example", "1")).await;
    let nobody = server("nobody.example");
    assert_eq!(store.drop_mail(&nobody, Selection::All, time(9000)).await.unwrap(), 0);
}

pub(super) async fn drop_some(store: Store) {
    let ids = leave_all(&store, &["1", "2", "3"].map(|txn| mail("b.example", txn))).await;
    let of_another = Deposit { origin: server("z.example"), ..mail("b.example", "4") };
    let last = leave(&store, of_another).await;
    let recipient = server("b.example");
    let drop = async |selection| store.drop_mail(&recipient, selection, time(9000)).await.unwrap();

    assert_eq!(drop(Selection::Envelope(ids[1])).await, 1);
    assert_eq!(drop(Selection::Envelope(ids[1])).await, 0);
    assert_eq!(held_ids(&store, "b.example").await, [ids[0], ids[2], last]);
    assert_eq!(drop(Selection::Origin(server("a.example"))).await, 2);
    assert_eq!(drop(Selection::Origin(server("nobody.example"))).await, 0);
    assert_eq!(held_ids(&store, "b.example").await, [last]);
    assert_eq!(summary(&store, "b.example").await.dropped_total, 3);
}

/// More than any backend looks at in one step.
pub(super) async fn drop_many(store: Store) {
    const OF_EACH: u64 = 700;
    let both = |number: u64| {
        let of_one = mail("b.example", &number.to_string());
        [Deposit { origin: server("z.example"), ..of_one.clone() }, of_one]
    };
    store.import((0..OF_EACH).flat_map(both).collect()).await.unwrap();
    let recipient = server("b.example");
    let drop = async |selection| store.drop_mail(&recipient, selection, time(9000)).await.unwrap();

    assert_eq!(drop(Selection::Origin(server("z.example"))).await, OF_EACH);
    let shares = store.shares(&recipient, None, 10).await.unwrap();
    let shares: Vec<_> =
        shares.iter().map(|share| (share.origin.as_str(), share.envelopes)).collect();
    assert_eq!(shares, [("a.example", OF_EACH)]);
    assert_eq!(drop(Selection::All).await, OF_EACH);
    assert_eq!(store.depth(&recipient).await.unwrap(), Depth::default());
}

pub(super) async fn envelopes(store: Store) {
    let mail = ["1", "2", "3"].map(|txn| mail("b.example", txn));
    let ids = leave_all(&store, &mail).await;
    let recipient = server("b.example");

    let lines = store.envelopes(&recipient, None, 2).await.unwrap();
    assert_eq!(lines.iter().map(|line| line.id).collect::<Vec<_>>(), ids[..2]);
    let rest = store.envelopes(&recipient, Some(ids[1]), 10).await.unwrap();
    assert_eq!(rest.len(), 1);
    let (line, mail) = (&rest[0], &mail[2]);
    assert_eq!((line.id, line.origin.as_str(), &line.txn_id), (ids[2], "a.example", &mail.txn_id));
    assert_eq!((line.deposited_at, line.expires_at), (mail.deposited_at, mail.expires_at));
    assert_eq!((line.bytes, line.condition), (mail.bytes(), Condition::Whole));
    assert_eq!(store.envelopes(&server("nobody.example"), None, 10).await.unwrap(), []);
}

pub(super) async fn exported_and_imported(store: Store) {
    let mail: Vec<_> =
        (0..5).map(|number| mail_at("b.example", &number.to_string(), number)).collect();
    let ids = leave_all(&store, &mail).await;
    let recipient = server("b.example");
    store.hold(&recipient).await.unwrap();

    let exported = store.export(&recipient, Some(ids[0]), EVERYTHING).await.unwrap().envelopes;
    let exported: Vec<Deposit> = exported.into_iter().map(|envelope| envelope.deposit).collect();
    assert_eq!(exported, mail[1..]);
    acknowledge(&store, "b.example", &ids[1..2]).await;
    store.drop_mail(&recipient, Selection::Envelope(ids[2]), time(9000)).await.unwrap();
    store.release(&recipient).await.unwrap();

    // One was acknowledged, one was dropped, two are there, one is of another mailbox.
    let elsewhere = Deposit { recipient: server("c.example"), ..mail[0].clone() };
    let all = exported.into_iter().chain([elsewhere.clone()]).collect();
    let imported = store.import(all).await.unwrap();
    assert_eq!(imported, Imported { imported: 2, duplicates: 3 });

    let held_here = held(&store, "b.example").await;
    let txn_ids: Vec<_> = held_here.iter().map(|held| held.deposit.txn_id.as_str()).collect();
    assert_eq!(txn_ids, ["0", "3", "4", "2"]);
    assert!(held_here[3].id > ids[4]);
    assert_eq!(held_here[3].deposit, mail[2]);
    assert_eq!(held(&store, "c.example").await[0].deposit, elsewhere);
}

pub(super) async fn import_asks_no_quota(store: Store) {
    leave_all(&store, &["1", "2", "3"].map(|txn| mail("b.example", txn))).await;

    let imported =
        store.import(vec![mail("b.example", "4"), mail("b.example", "4")]).await.unwrap();

    assert_eq!(imported, Imported { imported: 1, duplicates: 1 });
    let refused = store.deposit(mail("b.example", "5"), THREE_ENVELOPES).await.unwrap();
    assert!(matches!(refused, Deposited::Full(_)));
    assert_eq!(store.import(Vec::new()).await.unwrap(), Imported::default());
}

pub(super) async fn totals(store: Store) {
    let deposits = [mail("b.example", "1"), mail("b.example", "2"), mail("c.example", "3")];
    let bytes = deposits.iter().map(Deposit::bytes).collect::<Vec<_>>();
    let ids = leave_all(&store, &deposits).await;
    let totals = |envelopes, bytes| Totals { mailboxes: 2, envelopes, bytes, ..Totals::default() };

    assert_eq!(totals_of(&store).await, totals(3, bytes.iter().sum()));
    acknowledge(&store, "b.example", &ids[..1]).await;
    assert_eq!(totals_of(&store).await, totals(2, bytes[1] + bytes[2]));
    store.drop_mail(&server("c.example"), Selection::All, time(9000)).await.unwrap();
    assert_eq!(totals_of(&store).await, totals(1, bytes[1]));
    expire(&store, u64::MAX).await;
    assert_eq!(totals_of(&store).await, totals(0, 0));
}

/// Without the keys, which depend on how the store was opened.
async fn totals_of(store: &Store) -> Totals {
    Totals { keys: Vec::new(), ..store.totals().await.unwrap() }
}

pub(super) async fn at_its_own_time(store: Store) {
    let short = Deposit { expires_at: time(61_000), ..mail_at("b.example", "typing", 1000) };
    let long = mail_at("b.example", "events", 900);
    let ids = leave_all(&store, &[long, short]).await;

    assert_eq!(expire(&store, 61_000).await, Expired::default());
    assert_eq!(expire(&store, 61_001).await.envelopes, 1);
    assert_eq!(held_ids(&store, "b.example").await, ids[..1]);
    let again = deposit(&store, mail_at("b.example", "events", 900)).await;
    assert!(matches!(again, Deposited::Duplicate(_)));
}
