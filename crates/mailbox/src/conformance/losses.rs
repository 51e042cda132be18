//! Mail that its recipient never got.

use super::Store;
use super::fixtures::{
    ROOMY, acknowledge, deposit, expire_deposited_before, leave, losses, mail, mail_at, server,
    time,
};
use crate::{
    Deposit, Deposited, Expired, LOSS_ORIGINS_MAX, Loss, LossKind, MailboxLimits, OF_THE_MOMENT,
    Quotas,
};

const NOTHING: MailboxLimits = MailboxLimits { envelopes_max: 0, bytes_max: 0 };
const NO_MAILBOX: Quotas = Quotas { mailbox: NOTHING, ..ROOMY };
const NO_SHARE: Quotas = Quotas { origin: NOTHING, ..ROOMY };
const NO_RELAY: Quotas = Quotas { relay: NOTHING, ..ROOMY };

async fn turn_away(store: &Store, mail: Deposit, quotas: Quotas) {
    assert!(matches!(store.deposit(mail, quotas).await.unwrap(), Deposited::Full(_)));
}

pub(super) async fn turned_away(store: Store) {
    turn_away(&store, mail_at("b.example", "before there is a mailbox", 500), NO_RELAY).await;
    leave(&store, mail_at("b.example", "1", 1000)).await;
    let other = Deposit { origin: server("z.example"), ..mail_at("b.example", "2", 5000) };
    let bytes = mail("b.example", "2").bytes();

    turn_away(&store, mail_at("b.example", "2", 2000), NO_MAILBOX).await;
    turn_away(&store, mail_at("b.example", "2", 3000), NO_MAILBOX).await;
    turn_away(&store, mail_at("b.example", "2", 4000), NO_SHARE).await;
    turn_away(&store, other, NO_RELAY).await;

    let loss = |kind, origin, count, since, until| Loss {
        kind,
        origin: Some(server(origin)),
        count,
        bytes: count * bytes,
        since: time(since),
        until: time(until),
    };
    let expected = [
        loss(LossKind::MailboxFull, "a.example", 2, 2000, 3000),
        loss(LossKind::ShareFull, "a.example", 1, 4000, 4000),
        loss(LossKind::RelayFull, "z.example", 1, 5000, 5000),
    ];
    assert_eq!(losses(&store, "b.example").await, expected);
    assert_eq!(losses(&store, "c.example").await, []);
}

pub(super) async fn no_loss(store: Store) {
    let id = leave(&store, mail("b.example", "1")).await;
    assert!(matches!(deposit(&store, mail("b.example", "1")).await, Deposited::Duplicate(_)));
    let again = store.deposit(mail("b.example", "1"), NO_MAILBOX).await.unwrap();
    assert!(matches!(again, Deposited::Duplicate(_)));
    acknowledge(&store, "b.example", &[id]).await;

    assert_eq!(losses(&store, "b.example").await, []);
}

pub(super) async fn expired(store: Store) {
    let (one, two) = (mail_at("b.example", "1", 1000), mail_at("b.example", "2", 2000));
    let bytes = one.bytes() + two.bytes();
    leave(&store, one).await;
    leave(&store, two).await;
    let typing = mail_at("b.example", "typing", 3000);
    let expires_at = typing.deposited_at.after(OF_THE_MOMENT);
    leave(&store, Deposit { expires_at, ..typing }).await;

    let expired = expire_deposited_before(&store, 5000).await;

    let all = Expired { envelopes: 3, of_the_moment: 1, ..Expired::default() };
    assert_eq!(expired, all);
    let lost = losses(&store, "b.example").await;
    assert_eq!(lost.len(), 1);
    let expected = (LossKind::Expired, Some(server("a.example")), 2, bytes);
    assert_eq!((lost[0].kind, lost[0].origin.clone(), lost[0].count, lost[0].bytes), expected);
}

pub(super) async fn bounded(store: Store) {
    leave(&store, mail("b.example", "1")).await;
    for number in 0..LOSS_ORIGINS_MAX + 5 {
        let origin = server(&format!("a{number}.example"));
        turn_away(&store, Deposit { origin, ..mail("b.example", "2") }, NO_MAILBOX).await;
    }
    let known = Deposit { origin: server("a0.example"), ..mail("b.example", "2") };
    turn_away(&store, known, NO_MAILBOX).await;

    let lost = losses(&store, "b.example").await;
    assert_eq!(lost.len(), LOSS_ORIGINS_MAX + 1);
    assert_eq!((lost[0].origin.as_ref(), lost[0].count), (None, 5));
    let known = lost.iter().find(|loss| loss.origin == Some(server("a0.example")));
    assert_eq!(known.unwrap().count, 2);

    let of_another = Deposit { origin: server("z.example"), ..mail("b.example", "2") };
    turn_away(&store, of_another, NO_RELAY).await;
    let last = losses(&store, "b.example").await.pop().unwrap();
    let expected = (LossKind::RelayFull, Some(server("z.example")));
    assert_eq!((last.kind, last.origin), expected, "each kind has its own");
}

pub(super) async fn forgotten(store: Store) {
    leave(&store, mail("b.example", "1")).await;
    leave(&store, mail("c.example", "1")).await;
    let other = Deposit { origin: server("z.example"), ..mail("b.example", "2") };
    for _ in 0..3 {
        turn_away(&store, mail("b.example", "2"), NO_MAILBOX).await;
    }
    turn_away(&store, mail("c.example", "2"), NO_MAILBOX).await;
    let told = losses(&store, "b.example").await;

    // In the same millisecond.
    turn_away(&store, other, NO_MAILBOX).await;
    let last = told.iter().map(|loss| loss.until).max().unwrap();
    store.forget_losses(&server("b.example"), last).await.unwrap();

    let left = losses(&store, "b.example").await;
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].origin.clone(), left[0].count), (Some(server("z.example")), 1));
    assert!(left[0].until > last);
    store.forget_losses(&server("b.example"), left[0].until).await.unwrap();
    assert_eq!(losses(&store, "b.example").await, []);
    assert_eq!(losses(&store, "c.example").await.len(), 1);
    store.forget_losses(&server("nobody.example"), last).await.unwrap();
}
