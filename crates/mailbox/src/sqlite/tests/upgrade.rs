//! Databases that earlier programs wrote.

use std::path::Path;

use restante_sqlite_faults::fixtures;

use super::*;
use crate::{Full, LossKind, OnwardLimits, OnwardMail as _};

/// In `tests/fixtures`: mail 1, 3 (set aside) and 5 for b.example, where 2 was acknowledged, and 4 for c.example.
#[tokio::test]
async fn every_schema_so_far_is_taken_over_and_loses_nothing() {
    let migrations: Vec<_> = schema::SCHEMA.migrations.iter().map(|step| step.sql).collect();
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    for fixture in fixtures(&kept, &migrations).unwrap() {
        let folder = Folder::new();
        fixture.write(&folder.path()).unwrap();

        let store = folder.open();

        let version = fixture.version;
        let held = store.collect(&recipient(), None, EVERYTHING).await.unwrap().envelopes;
        let others = store.collect(&"c.example".parse().unwrap(), None, EVERYTHING).await.unwrap();
        let txn_ids = held.iter().chain(&others.envelopes).map(|held| held.deposit.txn_id.as_str());
        assert_eq!(txn_ids.collect::<Vec<_>>(), ["1", "5", "4"], "schema {version}");
        assert!(held[0].deposit.content.ends_with(br#""note":"the first"}"#), "schema {version}");
        for known in held.iter().map(|held| &held.deposit) {
            let again = store.deposit(known.clone(), ROOMY).await.unwrap();
            assert!(matches!(again, Deposited::Duplicate(_)), "schema {version}");
        }
        let shares = store.shares(&recipient(), None, 10).await.unwrap();
        let shares =
            shares.iter().map(|share| (share.origin.as_str(), share.envelopes, share.bytes));
        let bytes = held.iter().map(|held| held.deposit.bytes()).sum();
        assert_eq!(shares.collect::<Vec<_>>(), [("a.example", 2, bytes)], "schema {version}");
        let totals = store.totals().await.unwrap();
        assert_eq!((totals.mailboxes, totals.envelopes, totals.quarantined), (2, 3, 1));
        if version >= 2 {
            keeps_what_admission_added(&store).await;
            let c = store.registration(&"c.example".parse().unwrap()).await.unwrap().unwrap();
            // Before, nobody noted who had an invite; nothing of that time may lapse.
            let expected = if version == 2 { AdmittedBy::Operator } else { AdmittedBy::Nobody };
            assert_eq!(c.admitted_by, expected, "schema {version}");
        }
        if version >= 4 {
            keeps_what_onward_added(&store).await;
        }
        let expired_to = (version >= 6).then(|| Timestamp::from_millis(1_700_000_000_008));
        assert_eq!(store.expired_to().await.unwrap(), expired_to, "schema {version}");
        let mailbox = summary_of(&store).await;
        assert_eq!((mailbox.quarantined, mailbox.acknowledged_total), (1, 1), "schema {version}");
        assert!(leave(&store, &["6"]).await[0] > held[1].id, "schema {version}");
        let ids: Vec<_> = held.iter().map(|held| held.id).collect();
        assert_eq!(acknowledge(&store, &ids).await, 2, "schema {version}");
        let deposited = held.iter().chain(&others.envelopes).map(|held| held.deposit.deposited_at);
        let month = std::time::Duration::from_secs(30 * 24 * 60 * 60);
        let now = deposited.max().unwrap().after(month + std::time::Duration::from_secs(1));
        let expired = store.expire(Due { now, remembered_from: now.before(month) }, 10).await;
        // The one for c.example, the one set aside, and "6", which is of the year 1970; three keys.
        let all = Expired { envelopes: 3, remembered: 3, ..Expired::default() };
        assert_eq!(expired.unwrap(), all, "schema {version}");
    }
}

/// Losses of b.example, a registration of c.example, an invite, a key that nothing is sealed with.
async fn keeps_what_admission_added(store: &SqliteStore) {
    let losses = store.losses(&recipient()).await.unwrap();
    let losses = losses.iter().map(|loss| (loss.kind, loss.origin.clone(), loss.count));
    let origin = Some("a.example".parse().unwrap());
    let expected = [(LossKind::MailboxFull, origin, 2), (LossKind::Dropped, None, 1)];
    assert_eq!(losses.collect::<Vec<_>>(), expected);
    assert_eq!(summary_of(store).await.dropped_total, 1);
    let registration = store.registration(&"c.example".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(registration.senders.allow, Some(vec!["*.friends.example".to_owned()]));
    assert_eq!(store.invites().await.unwrap()[0].invite.note, "for a friend");
    let totals = store.totals().await.unwrap();
    assert_eq!((totals.registrations, totals.keys[0].envelopes), (1, 0));
}

/// Mail 5 is to be delivered onward, other mail was, and c.example is outgoing.
async fn keeps_what_onward_added(store: &SqliteStore) {
    assert_eq!(store.awaited_by(None, 10).await.unwrap(), [recipient()]);
    let origin = "a.example".parse().unwrap();
    let first = store.first_onward(&recipient(), &origin, Timestamp::EPOCH).await.unwrap().unwrap();
    assert_eq!(first.deposit.txn_id, "5");
    let mailbox = summary_of(store).await;
    let totals = (mailbox.delivered_total, mailbox.passed_on_total, mailbox.withdrawn_total);
    assert_eq!(totals, (7, 2, 1));
    let registration = store.registration(&"c.example".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(registration.outgoing, Outgoing::Yes);
    // b.example is a destination, and there for other mail as well.
    assert_eq!(store.totals().await.unwrap().onward_mailboxes, 0);
    let onward = OnwardLimits { destinations_max: 1, ..OnwardLimits::UNBOUNDED };
    let quotas = Quotas { onward, ..ROOMY };
    let another = Deposit {
        recipient: "d.example".parse().unwrap(),
        onward: Onward::Wanted,
        ..first.deposit.clone()
    };
    let refused = store.deposit(another, quotas).await.unwrap();
    assert_eq!(refused, Deposited::Full(Full::Share));
}

#[tokio::test]
async fn mail_of_the_first_schema_is_kept_as_long_as_is_configured() {
    let migrations: Vec<_> = schema::SCHEMA.migrations.iter().map(|step| step.sql).collect();
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let week = std::time::Duration::from_secs(7 * 24 * 60 * 60);
    for fixture in fixtures(&kept, &migrations).unwrap() {
        let folder = Folder::new();
        fixture.write(&folder.path()).unwrap();
        for _ in 0..2 {
            let store = SqliteStore::open_keeping(&folder.path(), &Keys::none(), week).unwrap();
            let held = store.collect(&recipient(), None, EVERYTHING).await.unwrap().envelopes;
            for held in held.iter().map(|held| &held.deposit) {
                let expected = if fixture.version == 1 { week } else { 30 * week / 7 };
                let kept = held.expires_at.since(held.deposited_at);
                assert_eq!(kept, expected, "schema {}", fixture.version);
            }
        }
    }
}
