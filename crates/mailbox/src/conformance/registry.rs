//! Registrations and invites.

use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::Store;
use super::fixtures::{held_ids, leave, losses, mail, mail_at, server, summary, time};
use crate::{
    AdmittedBy, Deposit, INVITES_MAX, Invite, InviteHash, InviteId, InviteOutcome, Left, LeftMail,
    NOTE_BYTES_MAX, OpenInvite, Outgoing, REGISTRATION_BYTES_MAX, REGISTRATIONS_MAX,
    RegisterOutcome, Registered, Registration, Revoked, Senders,
};

pub(super) fn registration(recipient: &str) -> Registration {
    Registration {
        recipient: server(recipient),
        record: Bytes::from_static(br#"{"server_name":"b.example","relays":[]}"#),
        senders: Senders {
            allow: Some(vec!["*.friends.example".to_owned(), "\"odd\"".to_owned()]),
            block: vec!["spam.example".to_owned()],
        },
        time_to_live: Some(Duration::from_secs(3600)),
        registered_at: time(1000),
        admitted_by: AdmittedBy::Nobody,
        outgoing: Outgoing::Yes,
    }
}

pub(super) fn invite(token: &str) -> Invite {
    Invite {
        hash: InviteHash::of(token.as_bytes()),
        server: None,
        note: format!("for {token}"),
        created_at: time(1000),
        expires_at: time(5000),
    }
}

async fn register(store: &Store, recipient: &str, token: &str, now: u64) -> RegisterOutcome {
    let hash = Some(InviteHash::of(token.as_bytes()));
    store.register(registration(recipient), hash, time(now)).await.unwrap()
}

async fn write(store: &Store, invite: Invite) -> InviteId {
    match store.invite(invite).await.unwrap() {
        InviteOutcome::Created(id) => id,
        other => panic!("not created: {other:?}"),
    }
}

pub(super) async fn registered(store: Store) {
    let recipient = server("b.example");
    assert_eq!(store.registration(&recipient).await.unwrap(), None);

    let first = registration("b.example");
    let outcome = store.register(first.clone(), None, time(1000)).await.unwrap();
    assert_eq!(outcome, RegisterOutcome::Accepted);
    assert_eq!(store.registration(&recipient).await.unwrap(), Some(first.clone()));
    assert_eq!(summary(&store, "b.example").await.registered, Registered::Yes);

    let anyone = Senders { allow: None, block: Vec::new() };
    let outgoing = Outgoing::No;
    let second = Registration { senders: anyone, time_to_live: None, outgoing, ..first };
    store.register(second.clone(), None, time(2000)).await.unwrap();
    assert_eq!(store.registration(&recipient).await.unwrap(), Some(second));
    assert_eq!(store.totals().await.unwrap().registrations, 1);
    assert_eq!(store.registration(&server("c.example")).await.unwrap(), None);
}

pub(super) async fn left(store: Store) {
    store.register(registration("stays.example"), None, time(1000)).await.unwrap();
    for (recipient, mail_is, kept) in
        [("b.example", LeftMail::Drop, 0), ("c.example", LeftMail::Keep, 1)]
    {
        store.register(registration(recipient), None, time(1000)).await.unwrap();
        leave(&store, mail(recipient, "1")).await;

        let gone = store.leave(&server(recipient), mail_is, time(2000)).await.unwrap();

        assert_eq!(gone, Left { dropped: 1 - kept });
        assert_eq!(store.registration(&server(recipient)).await.unwrap(), None);
        assert_eq!(held_ids(&store, recipient).await.len() as u64, kept);
        let mailbox = summary(&store, recipient).await;
        assert_eq!((mailbox.registered, mailbox.dropped_total), (Registered::No, 1 - kept));
        assert_eq!(losses(&store, recipient).await, []);
        let again = store.leave(&server(recipient), LeftMail::Keep, time(2000)).await.unwrap();
        assert_eq!(again, Left::default());
    }
    assert_eq!(store.totals().await.unwrap().registrations, 1);
    let unknown = store.leave(&server("nobody.example"), LeftMail::Drop, time(2000)).await;
    assert_eq!(unknown.unwrap(), Left::default());
}

pub(super) async fn ids_after_leaving(store: Store) {
    let first = leave(&store, mail("b.example", "1")).await;
    store.leave(&server("b.example"), LeftMail::Drop, time(2000)).await.unwrap();

    let later: Deposit = mail_at("b.example", "1", 3000);
    assert!(leave(&store, later).await > first);
}

pub(super) async fn invite_once(store: Store) {
    write(&store, invite("token")).await;

    assert_eq!(register(&store, "b.example", "token", 2000).await, RegisterOutcome::Accepted);
    // Its answer may have been lost.
    assert_eq!(register(&store, "b.example", "token", 2000).await, RegisterOutcome::Accepted);
    let other = register(&store, "c.example", "token", 2000).await;
    assert_eq!(other, RegisterOutcome::InviteUnknownOrUsed);
    assert_eq!(store.registration(&server("c.example")).await.unwrap(), None);
    assert_eq!(store.list(None, 10).await.unwrap().len(), 1);
    assert_eq!(store.invites().await.unwrap(), []);
    // Who has been admitted uses none up.
    write(&store, invite("another")).await;
    assert_eq!(register(&store, "b.example", "another", 2000).await, RegisterOutcome::Accepted);
    assert_eq!(store.invites().await.unwrap().len(), 1);
}

pub(super) async fn invite_refused(store: Store) {
    write(&store, invite("expires")).await;
    let only = Invite { server: Some(server("c.example")), ..invite("for c") };
    write(&store, only).await;
    let revoked = write(&store, invite("revoked")).await;
    assert_eq!(store.revoke_invite(revoked).await.unwrap(), Revoked::Yes);
    assert_eq!(store.revoke_invite(revoked).await.unwrap(), Revoked::NoSuchInvite);

    for (token, now) in [("expires", 5000), ("for c", 2000), ("revoked", 2000), ("made up", 2000)] {
        let refused = register(&store, "b.example", token, now).await;
        assert_eq!(refused, RegisterOutcome::InviteUnknownOrUsed, "{token}");
    }
    assert_eq!(register(&store, "c.example", "for c", 2000).await, RegisterOutcome::Accepted);
    assert_eq!(register(&store, "b.example", "expires", 4999).await, RegisterOutcome::Accepted);
}

pub(super) async fn invite_together(store: Store) {
    write(&store, invite("token")).await;
    let mut callers = JoinSet::new();
    for number in 0..20 {
        let store = store.clone();
        callers.spawn(async move {
            register(&store, &format!("b{number}.example"), "token", 2000).await
        });
    }

    let outcomes = callers.join_all().await;

    let accepted = outcomes.iter().filter(|outcome| **outcome == RegisterOutcome::Accepted);
    assert_eq!(accepted.count(), 1);
    assert_eq!(store.totals().await.unwrap().registrations, 1);
}

pub(super) async fn invites_listed(store: Store) {
    let first = write(&store, invite("one")).await;
    let only = Invite { server: Some(server("c.example")), ..invite("two") };
    let second = write(&store, only.clone()).await;

    let open = [
        OpenInvite { id: first, invite: invite("one") },
        OpenInvite { id: second, invite: only.clone() },
    ];
    assert_eq!(store.invites().await.unwrap(), open);
    store.revoke_invite(second).await.unwrap();
    let third = write(&store, only).await;
    assert!(third > second, "the number of a revoked invite is given out again");
}

pub(super) async fn bounded(store: Store) {
    for number in 0..INVITES_MAX {
        write(&store, invite(&number.to_string())).await;
    }
    assert_eq!(store.invite(invite("more")).await.unwrap(), InviteOutcome::TooMany);
    let later = Invite { created_at: time(5000), expires_at: time(9000), ..invite("later") };
    write(&store, later).await;
    assert_eq!(store.invites().await.unwrap().len(), 1);

    let first = registration("b.example");
    store.register(first.clone(), None, time(1000)).await.unwrap();
    let mut registering = JoinSet::new();
    for number in 0..REGISTRATIONS_MAX {
        let store = store.clone();
        registering.spawn(async move {
            let registration = registration(&format!("b{number}.example"));
            store.register(registration, None, time(1000)).await.unwrap()
        });
    }
    let outcomes = registering.join_all().await;
    let refused = outcomes.iter().filter(|outcome| **outcome == RegisterOutcome::TooMany);
    assert_eq!(refused.count(), 1);
    let again = store.register(first, None, time(2000)).await.unwrap();
    assert_eq!(again, RegisterOutcome::Accepted, "who is registered may renew that");
}

pub(super) async fn bounded_in_bytes(store: Store) {
    let longest = Invite { note: "x".repeat(NOTE_BYTES_MAX), ..invite("longest") };
    write(&store, longest.clone()).await;
    let wordy = Invite { note: longest.note + "x", ..invite("wordy") };
    assert_eq!(store.invite(wordy).await.unwrap(), InviteOutcome::NoteTooLong);

    let Senders { allow, block } = registration("b.example").senders;
    let patterns: usize = allow.iter().flatten().chain(&block).map(String::len).sum();
    let record = Bytes::from(vec![b' '; REGISTRATION_BYTES_MAX - patterns]);
    let largest = Registration { record, ..registration("b.example") };
    let one_more = || "x".to_owned();
    let allow = allow.map(|allow| [allow, vec![one_more()]].concat());
    let allows = Senders { allow, ..largest.senders.clone() };
    let block = [block, vec![one_more()]].concat();
    let blocks = Senders { block, ..largest.senders.clone() };
    for senders in [allows, blocks] {
        let large = Registration { senders, ..largest.clone() };
        let refused = store.register(large, None, time(1000)).await.unwrap();
        assert_eq!(refused, RegisterOutcome::TooLarge);
    }
    let taken = store.register(largest, None, time(1000)).await.unwrap();
    assert_eq!(taken, RegisterOutcome::Accepted);
}
