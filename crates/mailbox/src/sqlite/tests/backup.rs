//! Copies of a database, and databases of copies.

use super::*;
use crate::{BackupError, Custody as _, Registry as _, Selection, Upkeep as _};

#[tokio::test]
async fn a_backup_holds_what_was_there_and_the_store_goes_on() {
    let folder = Folder::new();
    let store = folder.open();
    let ids = leave(&store, &["1", "2", "3"]).await;
    acknowledge(&store, &ids[..1]).await;
    let copy = folder.folder.path().join("copy.sqlite");

    let backup = store.backup(&copy).await.unwrap();
    leave(&store, &["4"]).await;

    assert_eq!(backup.bytes, std::fs::metadata(&copy).unwrap().len());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let copied = SqliteStore::open(&copy).unwrap();
    assert_eq!(collect(&copied).await.0, ["2", "3"]);
    assert!(matches!(copied.deposit(mail("1"), ROOMY).await.unwrap(), Deposited::Duplicate(_)));
    assert_eq!(collect(&store).await.0, ["2", "3", "4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_made_while_mail_comes_holds_one_moment() {
    let folder = Folder::new();
    let store = folder.open();
    let leaving = {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0..200 {
                leave(&store, &[&number.to_string()]).await;
            }
        })
    };
    let mut counts = Vec::new();
    for number in 0..3 {
        let copy = folder.folder.path().join(format!("copy-{number}.sqlite"));
        store.backup(&copy).await.unwrap();
        let copied = SqliteStore::open(&copy).unwrap();
        let (txn_ids, quarantined) = collect(&copied).await;
        let first: Vec<_> = (0..txn_ids.len()).map(|number| number.to_string()).collect();
        assert_eq!((&txn_ids, quarantined), (&first, vec![]));
        let totals = copied.totals().await.unwrap();
        assert_eq!(totals.envelopes as usize, txn_ids.len());
        counts.push(txn_ids.len());
    }
    leaving.await.unwrap();
    assert!(counts.is_sorted());
}

#[tokio::test]
async fn a_backup_replaces_nothing_and_leaves_nothing_half_done() {
    let folder = Folder::new();
    let store = folder.open();
    let taken = folder.folder.path().join("taken");
    std::fs::write(&taken, "precious").unwrap();

    let refused = store.backup(&taken).await.unwrap_err();
    assert!(matches!(refused, BackupError::Exists { .. }), "{refused}");
    assert_eq!(std::fs::read_to_string(&taken).unwrap(), "precious");
    let nowhere = folder.folder.path().join("no such folder").join("copy");
    let refused = store.backup(&nowhere).await.unwrap_err();
    assert!(matches!(refused, BackupError::Unwritable { .. }), "{refused}");
    let parts = std::fs::read_dir(folder.folder.path()).unwrap();
    let parts = parts.filter(|file| {
        file.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "part")
    });
    assert_eq!(parts.count(), 0);
}

#[tokio::test]
async fn a_restored_relay_holds_everything_under_ids_that_were_never_given_out() {
    let folder = Folder::new();
    let store = folder.open();
    let ids = leave(&store, &["1", "2", "3", "4"]).await;
    acknowledge(&store, &ids[..1]).await;
    folder.damage(ids[1], "body = x''");
    collect(&store).await;
    let registration = registration("c.example");
    store.register(registration.clone(), None, Timestamp::EPOCH).await.unwrap();
    store.hold(&registration.recipient).await.unwrap();
    let copy = folder.folder.path().join("copy.sqlite");
    store.backup(&copy).await.unwrap();
    let before = store.list(None, 10).await.unwrap();
    let after_backup = leave(&store, &["5"]).await;
    drop(store);
    let restored = folder.folder.path().join("restored.sqlite");

    let told = SqliteStore::restore(&copy, &restored).unwrap();

    assert_eq!(told, Restored { mailboxes: 2, envelopes: 3 });
    let store = SqliteStore::open(&restored).unwrap();
    assert_eq!(store.list(None, 10).await.unwrap(), before);
    let held = store.collect(&recipient(), None, EVERYTHING).await.unwrap().envelopes;
    let txn_ids: Vec<_> = held.iter().map(|held| held.deposit.txn_id.as_str()).collect();
    assert_eq!(txn_ids, ["3", "4"]);
    // Whoever has a cursor from before goes on collecting, and an old acknowledgement hits nothing.
    assert!(held.iter().all(|held| held.id > after_backup[0]), "{held:?}");
    assert_eq!(acknowledge(&store, &[&ids[..], &after_backup].concat()).await, 0);
    let lines = store.envelopes(&recipient(), None, 10).await.unwrap();
    assert_eq!(lines.len(), 3);
    assert!(matches!(store.deposit(mail("1"), ROOMY).await.unwrap(), Deposited::Duplicate(_)));
    assert!(leave(&store, &["5"]).await[0] > held[1].id);
    assert_eq!(store.registration(&registration.recipient).await.unwrap(), Some(registration));
    let dropped = store.drop_mail(&recipient(), Selection::All, Timestamp::EPOCH).await.unwrap();
    assert_eq!(dropped, 4);
}

#[tokio::test]
async fn two_restores_of_a_backup_give_different_ids() {
    let folder = Folder::new();
    let store = folder.open();
    leave(&store, &["1"]).await;
    let copy = folder.folder.path().join("copy.sqlite");
    store.backup(&copy).await.unwrap();
    let mut ids = Vec::new();
    for name in ["once", "twice"] {
        let path = folder.folder.path().join(name);
        SqliteStore::restore(&copy, &path).unwrap();
        let store = SqliteStore::open(&path).unwrap();
        ids.push(store.collect(&recipient(), None, EVERYTHING).await.unwrap().envelopes[0].id);
    }
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_mailbox_that_was_empty_goes_on_beyond_every_id_as_well() {
    let folder = Folder::new();
    let store = folder.open();
    let ids = leave(&store, &["1"]).await;
    acknowledge(&store, &ids).await;
    let copy = folder.folder.path().join("copy.sqlite");
    store.backup(&copy).await.unwrap();
    let after_backup = leave(&store, &["2"]).await;
    let restored = folder.folder.path().join("restored.sqlite");

    SqliteStore::restore(&copy, &restored).unwrap();

    let store = SqliteStore::open(&restored).unwrap();
    assert!(leave(&store, &["3"]).await > after_backup);
}

#[tokio::test]
async fn a_restore_that_was_interrupted_is_begun_anew() {
    let folder = Folder::new();
    let store = folder.open();
    leave(&store, &["1", "2"]).await;
    let beside = |name: &str| folder.folder.path().join(name);
    store.backup(&beside("copy.sqlite")).await.unwrap();
    leave(&store, &["3"]).await;
    // Half a file, and the log of another copy, which was made later.
    std::fs::write(beside("restored.sqlite.restoring"), "half").unwrap();
    let log = beside("restored.sqlite.restoring-wal");
    assert!(std::fs::copy(beside("relay.sqlite-wal"), log).unwrap() > 0);

    let restored = beside("restored.sqlite");
    let told = SqliteStore::restore(&beside("copy.sqlite"), &restored).unwrap();

    assert_eq!(told, Restored { mailboxes: 1, envelopes: 2 });
    assert_eq!(collect(&SqliteStore::open(&restored).unwrap()).await.0, ["1", "2"]);
}

#[tokio::test]
async fn a_copy_of_files_that_were_in_use_brings_the_mail_in_its_log() {
    let folder = Folder::new();
    let store = folder.open();
    leave(&store, &["1", "2"]).await;
    let beside = |name: &str| folder.folder.path().join(name);
    std::fs::copy(folder.path(), beside("copy.sqlite")).unwrap();
    let mut log = folder.path().into_os_string();
    log.push("-wal");
    assert!(std::fs::copy(log, beside("copy.sqlite-wal")).unwrap() > 0, "the mail is in the log");

    let told = SqliteStore::restore(&beside("copy.sqlite"), &beside("restored.sqlite")).unwrap();

    assert_eq!(told, Restored { mailboxes: 1, envelopes: 2 });
}

#[tokio::test]
async fn a_restore_replaces_nothing_and_takes_no_foreign_file() {
    let folder = Folder::new();
    let store = folder.open();
    leave(&store, &["1"]).await;
    let copy = folder.folder.path().join("copy.sqlite");
    store.backup(&copy).await.unwrap();

    let refused = SqliteStore::restore(&copy, &folder.path()).unwrap_err();
    assert!(matches!(refused, RestoreError::Exists { .. }), "{refused}");
    // The log of a database that is gone.
    let path = folder.folder.path().join("new.sqlite");
    std::fs::write(folder.folder.path().join("new.sqlite-wal"), "old").unwrap();
    let refused = SqliteStore::restore(&copy, &path).unwrap_err();
    assert!(matches!(refused, RestoreError::Exists { .. }), "{refused}");
    let letter = folder.folder.path().join("letter");
    std::fs::write(&letter, "a letter, ".repeat(500)).unwrap();
    let path = folder.folder.path().join("other.sqlite");
    let refused = SqliteStore::restore(&letter, &path).unwrap_err();
    assert!(matches!(refused, RestoreError::Backup(OpenError::Foreign { .. })), "{refused:?}");
    assert!(!path.exists());
    let left = std::fs::read_dir(folder.folder.path()).unwrap();
    let mut left = left.map(|file| file.unwrap().file_name().into_string().unwrap());
    assert!(!left.any(|name| name.contains("restoring")));
}
