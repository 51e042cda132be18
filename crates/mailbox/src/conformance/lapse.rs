//! Registrations that nobody renews, and mailboxes that nobody needs.

use std::sync::Arc;

use super::Store;
use super::fixtures::{
    acknowledge, deposit, expire_deposited_before, held_ids, leave, leave_all, losses, mail,
    mail_at, server, summary, time,
};
use super::registry::{invite, registration};
use crate::{
    AdmittedBy, Deposited, Hold, InviteHash, Lapse, Lapsed, LeftMail, Registration, Selection,
};

/// Of what was heard of, used or lost last before `millis`.
fn before(millis: u64) -> Lapse {
    let before = time(millis);
    Lapse { called_before: before, unused_before: before, now: before, spared: Arc::new([]) }
}

async fn lapse(store: &Store, lapse: &Lapse) -> (Vec<String>, Vec<String>) {
    let Lapsed { registrations, mailboxes, .. } = store.lapse(lapse, None, 100).await.unwrap();
    let names = |servers: Vec<_>| servers.iter().map(ToString::to_string).collect();
    (names(registrations), names(mailboxes))
}

fn both(registrations: &[&str], mailboxes: &[&str]) -> (Vec<String>, Vec<String>) {
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    (names(registrations), names(mailboxes))
}

async fn register(store: &Store, recipient: &str, now: u64) {
    store.register(registration(recipient), None, time(now)).await.unwrap();
}

pub(super) async fn silent(store: Store) {
    for recipient in ["calls.example", "renews.example", "silent.example"] {
        register(&store, recipient, 1000).await;
    }
    leave(&store, mail("silent.example", "1")).await;
    register(&store, "renews.example", 2000).await;
    store.note_call(&server("calls.example"), time(2000)).await.unwrap();
    store.note_call(&server("calls.example"), time(1500)).await.unwrap();
    store.note_call(&server("nobody.example"), time(2000)).await.unwrap();

    assert_eq!(lapse(&store, &before(1000)).await, both(&[], &[]));
    assert_eq!(lapse(&store, &before(2000)).await, both(&["silent.example"], &[]));

    assert_eq!(store.registration(&server("silent.example")).await.unwrap(), None);
    assert_eq!(held_ids(&store, "silent.example").await.len(), 1, "its mail stays");
    assert!(store.registration(&server("calls.example")).await.unwrap().is_some());
    let totals = store.totals().await.unwrap();
    assert_eq!((totals.registrations, totals.mailboxes), (2, 3));
}

pub(super) async fn by_operator(store: Store) {
    let listed =
        Registration { admitted_by: AdmittedBy::Operator, ..registration("listed.example") };
    store.register(listed, None, time(1000)).await.unwrap();
    // A renewal says nothing of it any more.
    register(&store, "listed.example", 1000).await;
    store.invite(invite("token")).await.unwrap();
    let hash = Some(InviteHash::of(b"token"));
    store.register(registration("invited.example"), hash, time(1000)).await.unwrap();
    // One that was here already brings an invite; another brings one that is used up, and stays as it was.
    store.invite(invite("later")).await.unwrap();
    register(&store, "later.example", 1000).await;
    for recipient in ["later.example", "stranger.example"] {
        let hash = Some(InviteHash::of(b"later"));
        register(&store, recipient, 1000).await;
        store.register(registration(recipient), hash, time(1000)).await.unwrap();
    }
    assert_eq!(store.invites().await.unwrap(), []);
    register(&store, "spared.example", 1000).await;

    let spared = Arc::new(["spared.example".parse().unwrap()]);
    let all_but_spared = Lapse { spared, ..before(u64::MAX) };
    let gone = both(&["stranger.example"], &["stranger.example"]);
    assert_eq!(lapse(&store, &all_but_spared).await, gone);
    let known = store.registration(&server("invited.example")).await.unwrap().unwrap();
    assert_eq!(known.admitted_by, AdmittedBy::Operator);
}

pub(super) async fn stays(store: Store) {
    leave(&store, mail("mail.example", "1")).await;
    let held = leave(&store, mail("held.example", "1")).await;
    store.hold(&server("held.example")).await.unwrap();
    acknowledge(&store, "held.example", &[held]).await;
    leave(&store, mail("lost.example", "1")).await;
    store.drop_mail(&server("lost.example"), Selection::All, time(5000)).await.unwrap();
    register(&store, "registered.example", 5000).await;

    assert_eq!(lapse(&store, &before(5000)).await, both(&[], &[]));
    assert_eq!(losses(&store, "lost.example").await.len(), 1);
    assert_eq!(lapse(&store, &before(5001)).await, {
        both(&["registered.example"], &["lost.example", "registered.example"])
    });
    // Whoever gets the same name, or the same place, finds nothing of it.
    for recipient in ["lost.example", "other.example"] {
        leave(&store, mail(recipient, "2")).await;
        assert_eq!(losses(&store, recipient).await, []);
        assert_eq!(store.registration(&server(recipient)).await.unwrap(), None);
    }
    store.release(&server("held.example")).await.unwrap();
    assert_eq!(lapse(&store, &before(1001)).await, both(&[], &["held.example"]));
    assert_eq!(store.totals().await.unwrap().mailboxes, 3);
}

/// A registration ends, and what the mailbox is needed for all the same does not.
pub(super) async fn needed_without_registration(store: Store) {
    let silent = ["held.example", "lost.example", "used.example"];
    for recipient in silent {
        register(&store, recipient, 1000).await;
    }
    register(&store, "calls.example", 9000).await;
    store.hold(&server("held.example")).await.unwrap();
    leave(&store, mail("lost.example", "1")).await;
    store.drop_mail(&server("lost.example"), Selection::All, time(5000)).await.unwrap();
    let used = leave(&store, mail_at("used.example", "1", 5000)).await;
    acknowledge(&store, "used.example", &[used]).await;

    assert_eq!(lapse(&store, &before(2000)).await, both(&silent, &[]));

    assert_eq!(summary(&store, "held.example").await.hold, Hold::Held);
    assert_eq!(losses(&store, "lost.example").await.len(), 1);
    let totals = store.totals().await.unwrap();
    assert_eq!((totals.registrations, totals.mailboxes), (1, 4));
    assert_eq!(lapse(&store, &before(5001)).await, both(&[], &silent[1..]));
    let totals = store.totals().await.unwrap();
    assert_eq!((totals.registrations, totals.mailboxes), (1, 2));
}

pub(super) async fn used_later(store: Store) {
    // The clock may have gone back since.
    let mail = [1000, 5000, 3000].map(|at| mail_at("b.example", &at.to_string(), at));
    let ids = leave_all(&store, &mail).await;
    acknowledge(&store, "b.example", &ids).await;

    assert_eq!(lapse(&store, &before(5000)).await, both(&[], &[]));
    assert_eq!(lapse(&store, &before(5001)).await, both(&[], &["b.example"]));
}

pub(super) async fn by_their_own_times(store: Store) {
    register(&store, "silent.example", 1000).await;
    let id = leave(&store, mail("empty.example", "1")).await;
    acknowledge(&store, "empty.example", &[id]).await;

    let silent = Lapse { unused_before: time(0), ..before(2000) };
    assert_eq!(lapse(&store, &silent).await, both(&["silent.example"], &[]));
    register(&store, "silent.example", 1000).await;
    let unused = Lapse { called_before: time(0), ..before(2000) };
    assert_eq!(lapse(&store, &unused).await, both(&[], &["empty.example"]));
}

pub(super) async fn empty(store: Store) {
    let first = leave(&store, mail_at("b.example", "1", 1000)).await;
    acknowledge(&store, "b.example", &[first]).await;

    // Whoever collects from it still has a cursor there.
    assert_eq!(lapse(&store, &before(1000)).await, both(&[], &[]));
    assert_eq!(lapse(&store, &before(1001)).await, both(&[], &["b.example"]));
    assert_eq!(store.list(None, 10).await.unwrap(), []);
    let again = deposit(&store, mail_at("b.example", "1", 1000)).await;
    assert!(matches!(again, Deposited::Duplicate(_)));
    let second = leave(&store, mail_at("b.example", "2", 1000)).await;
    // An acknowledgement of the earlier mailbox's next id must not hit.
    assert_ne!(second.get(), first.get() + 1);
    expire_deposited_before(&store, 2000).await;
    assert_eq!(lapse(&store, &before(2000)).await, both(&[], &[]), "a loss is to be told");
}

pub(super) async fn left(store: Store) {
    for (recipient, mail_is) in [("c.example", LeftMail::Keep), ("b.example", LeftMail::Drop)] {
        register(&store, recipient, 5000).await;
        let id = leave(&store, mail_at(recipient, "1", 5000)).await;
        if mail_is == LeftMail::Keep {
            acknowledge(&store, recipient, &[id]).await;
        }
        store.leave(&server(recipient), mail_is, time(6000)).await.unwrap();
    }
    assert_eq!(lapse(&store, &before(2)).await, both(&[], &["b.example"]));
}

pub(super) async fn in_steps(store: Store) {
    for recipient in ["a.example", "f.example"] {
        leave(&store, mail(recipient, "1")).await;
    }
    for recipient in ["b.example", "c.example", "d.example", "e.example"] {
        register(&store, recipient, 1000).await;
    }
    let spared = Arc::new(["b.example".parse().unwrap()]);
    let all_but_spared = Lapse { spared, ..before(2000) };
    let mut after = None;
    let mut steps = Vec::new();
    while steps.len() < 10 {
        let step = store.lapse(&all_but_spared, after.as_ref(), 2).await.unwrap();
        steps.push(step.mailboxes.len());
        after = step.last;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(steps, [0, 2, 1, 0], "what stays ends no round, and is met once");
}
