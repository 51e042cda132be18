//! What is kept at hand of registrations, over a store that counts.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use restante_mailbox::{
    AdmittedBy, Invite, InviteId, InviteOutcome, Left, LeftMail, MemoryStore, OpenInvite, Outgoing,
    RegisterOutcome, Revoked,
};
use tokio::sync::Notify;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// Counts how often it is asked who is registered.
#[derive(Default)]
struct Counting {
    store: MemoryStore,
    asked: AtomicUsize,
    noted: AtomicUsize,
    /// What lets mail be dropped.
    may_drop: Notify,
}

#[async_trait]
impl Registry for Counting {
    async fn registration(
        &self,
        recipient: &ServerName,
    ) -> Result<Option<Registration>, StoreError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.store.registration(recipient).await
    }

    async fn register(
        &self,
        registration: Registration,
        invite: Option<InviteHash>,
        now: Timestamp,
    ) -> Result<RegisterOutcome, StoreError> {
        self.store.register(registration, invite, now).await
    }

    async fn leave(
        &self,
        recipient: &ServerName,
        mail: LeftMail,
        now: Timestamp,
    ) -> Result<Left, StoreError> {
        if mail == LeftMail::Drop {
            self.may_drop.notified().await;
        }
        self.store.leave(recipient, mail, now).await
    }

    async fn note_call(&self, recipient: &ServerName, now: Timestamp) -> Result<(), StoreError> {
        self.noted.fetch_add(1, Ordering::SeqCst);
        self.store.note_call(recipient, now).await
    }

    async fn lapse(
        &self,
        lapse: &Lapse,
        after: Option<&ServerName>,
        batch_max: usize,
    ) -> Result<Lapsed, StoreError> {
        self.store.lapse(lapse, after, batch_max).await
    }

    async fn invite(&self, invite: Invite) -> Result<InviteOutcome, StoreError> {
        self.store.invite(invite).await
    }

    async fn invites(&self) -> Result<Vec<OpenInvite>, StoreError> {
        self.store.invites().await
    }

    async fn revoke_invite(&self, id: InviteId) -> Result<Revoked, StoreError> {
        self.store.revoke_invite(id).await
    }
}

fn name(name: &str) -> ServerName {
    name.parse().unwrap()
}

fn registration(server: &str, block: &[&str]) -> Registration {
    Registration {
        recipient: name(server),
        record: Bytes::from_static(b"{}"),
        senders: StoredSenders {
            allow: None,
            block: block.iter().map(|pattern| (*pattern).to_owned()).collect(),
        },
        time_to_live: None,
        registered_at: NOW,
        admitted_by: AdmittedBy::Nobody,
        outgoing: Outgoing::No,
    }
}

#[tokio::test]
async fn the_store_is_asked_once_for_each_server_and_again_after_a_change() {
    let registry = Arc::new(Counting::default());
    let registrations = Registrations::new(registry.clone());
    let b = name("b.example");
    for _ in 0..5 {
        assert_eq!(registrations.terms(&b).await.unwrap(), None);
    }
    assert_eq!(registry.asked.load(Ordering::SeqCst), 1);

    let change = registrations.change(&b).await;
    change.register(registration("b.example", &["evil.example"]), None, NOW).await.unwrap();
    for _ in 0..5 {
        let terms = registrations.terms(&b).await.unwrap().unwrap();
        assert!(!terms.senders.permit(&name("evil.example")));
        assert!(terms.senders.permit(&name("a.example")));
    }
    assert_eq!(registry.asked.load(Ordering::SeqCst), 2);

    change.leave(&b, LeftMail::Keep, NOW).await.unwrap();
    assert_eq!(registrations.terms(&b).await.unwrap(), None);
    assert_eq!(registry.asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn who_leaves_is_not_registered_any_more_while_its_mail_is_dropped() {
    let registry = Arc::new(Counting::default());
    let registrations = Registrations::new(registry.clone());
    let b = name("b.example");
    let change = registrations.change(&b).await;
    change.register(registration("b.example", &[]), None, NOW).await.unwrap();
    assert!(registrations.terms(&b).await.unwrap().is_some());

    let mut leaving = std::pin::pin!(change.leave(&b, LeftMail::Drop, NOW));
    assert!(futures_util::poll!(leaving.as_mut()).is_pending());

    assert_eq!(registrations.terms(&b).await.unwrap(), None);
    registry.may_drop.notify_one();
    leaving.await.unwrap();
}

#[tokio::test]
async fn any_number_of_strangers_does_not_drive_out_who_is_registered() {
    let registry = Arc::new(Counting::default());
    let registrations = Registrations::new(registry.clone());
    registrations
        .change(&name("b.example"))
        .await
        .register(registration("b.example", &[]), None, NOW)
        .await
        .unwrap();
    let b = name("b.example");
    assert!(registrations.terms(&b).await.unwrap().is_some());
    for number in 0..2 * UNREGISTERED_MAX {
        registrations.terms(&name(&format!("s{number}.example"))).await.unwrap();
    }
    let asked = registry.asked.load(Ordering::SeqCst);
    assert!(registrations.terms(&b).await.unwrap().is_some());
    assert_eq!(registry.asked.load(Ordering::SeqCst), asked);
}

/// Of what was heard of last before `moment`.
fn before(moment: Timestamp) -> Lapse {
    Lapse { called_before: moment, unused_before: moment, now: moment, spared: Arc::new([]) }
}

#[tokio::test]
async fn a_call_is_noted_once_a_day_and_keeps_the_registration() {
    let registry = Arc::new(Counting::default());
    let registrations = Registrations::new(registry.clone());
    let (b, day) = (name("b.example"), NOTED_ANEW_AFTER);
    let change = registrations.change(&b).await;
    change.register(registration("b.example", &[]), None, NOW).await.unwrap();
    drop(change);
    for hour in 0..48 {
        let now = NOW.after(Duration::from_secs(3600 * hour));
        registrations.note_call(&b, now).await;
        registrations.note_call(&name("stranger.example"), now).await;
    }
    assert_eq!(registry.noted.load(Ordering::SeqCst), 2);

    let noted = NOW.after(day);
    registrations.lapse(&before(noted), None, 10).await.unwrap();
    assert!(registrations.terms(&b).await.unwrap().is_some());
}

#[tokio::test]
async fn a_registration_that_has_lapsed_is_not_believed_any_more() {
    let registry = Arc::new(Counting::default());
    let registrations = Registrations::new(registry.clone());
    let b = name("b.example");
    let change = registrations.change(&b).await;
    change.register(registration("b.example", &[]), None, NOW).await.unwrap();
    drop(change);
    assert!(registrations.terms(&b).await.unwrap().is_some());

    let later = NOW.after(NOTED_ANEW_AFTER);
    let lapsed = registrations.lapse(&before(later), None, 10).await.unwrap();

    assert_eq!(lapsed.registrations, std::slice::from_ref(&b));
    assert_eq!(registrations.terms(&b).await.unwrap(), None);
}

#[tokio::test]
async fn whoever_changes_a_registration_keeps_out_nobody_but_those_of_the_same_server() {
    let registrations = Registrations::new(Arc::new(Counting::default()));
    let (b, c) = (name("b.example"), name("c.example"));
    let leaving = registrations.change(&b).await;
    drop(registrations.change(&c).await);
    let mut another = std::pin::pin!(registrations.change(&b));
    assert!(futures_util::poll!(another.as_mut()).is_pending());
    drop(leaving);
    drop(another.await);
    assert!(registrations.turns().is_empty());
}

#[test]
fn a_list_that_cannot_be_read_lets_nobody_in() {
    let unreadable = terms(&registration("b.example", &["not a pattern"]));
    assert!(!unreadable.senders.permit(&name("a.example")));
}
