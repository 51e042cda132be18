//! Copies of a database.

use restante_sqlite::{BackupError, Database, Limits, OpenError};

use crate::support::{Folder, NOTES, add, notes};

#[tokio::test]
async fn a_copy_is_a_database_of_the_same_schema_with_all_that_was_written() {
    let folder = Folder::new();
    let database = folder.open();
    database.write(add("first")).await.unwrap();
    let copy = folder.path().with_extension("copy");

    let bytes = database.backup(&copy).await.unwrap();
    database.write(add("second")).await.unwrap();

    assert_eq!(bytes, std::fs::metadata(&copy).unwrap().len());
    let copied = Database::open(&copy, &NOTES, Limits::default()).unwrap();
    assert_eq!(copied.read(notes).await.unwrap(), ["first"]);
    assert_eq!(database.read(notes).await.unwrap(), ["first", "second"]);
}

#[tokio::test]
async fn a_copy_never_replaces_a_file() {
    let folder = Folder::new();
    let database = folder.open();
    let copy = folder.path().with_extension("copy");
    database.backup(&copy).await.unwrap();

    let again = database.backup(&copy).await;
    assert!(matches!(again, Err(BackupError::Exists { .. })), "{again:?}");
    let itself = database.backup(&folder.path()).await;
    assert!(matches!(itself, Err(BackupError::Exists { .. })), "{itself:?}");
}

#[test]
fn a_copy_of_which_nobody_waits_for_the_end_is_not_begun_again_meanwhile() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().max_blocking_threads(1).build();
    runtime.unwrap().block_on(async {
        let folder = Folder::new();
        let database = folder.open();
        let copy = folder.path().with_extension("copy");
        let (go_on, held) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || held.recv());
        let given_up = tokio::time::timeout(std::time::Duration::ZERO, database.backup(&copy));
        given_up.await.unwrap_err();

        let again = database.backup(&copy).await;

        assert!(matches!(again, Err(BackupError::UnderWay)), "{again:?}");
        go_on.send(()).unwrap();
        busy.await.unwrap().unwrap();
    });
}

#[tokio::test]
async fn what_an_interrupted_copy_left_is_replaced() {
    let folder = Folder::new();
    let database = folder.open();
    let copy = folder.path().with_extension("copy");
    std::fs::write(folder.path().with_extension("copy.part"), "half of it").unwrap();

    database.backup(&copy).await.unwrap();

    assert!(Database::open(&copy, &NOTES, Limits::default()).is_ok());
    assert!(!folder.path().with_extension("copy.part").exists());
}

#[tokio::test]
async fn a_database_in_memory_has_no_copy() {
    let database = Database::open_in_place(&NOTES, || std::time::Duration::ZERO).unwrap();
    let folder = Folder::new();

    let refused = database.backup(&folder.path()).await;

    assert!(matches!(refused, Err(BackupError::InMemory)), "{refused:?}");
}

#[tokio::test]
async fn who_opens_may_look_and_write_before_anybody_else_or_refuse() {
    let folder = Folder::new();
    let opened = Database::open_and(&folder.path(), &NOTES, Limits::default(), |connection| {
        add("first")(connection).unwrap();
        Ok(7)
    });
    let (database, found) = opened.unwrap();
    assert_eq!((database.read(notes).await.unwrap(), found), (vec!["first".to_owned()], 7));
    drop(database);

    let refused = Database::open_and(&folder.path(), &NOTES, Limits::default(), |_| {
        let source = "not in this house".into();
        Err::<(), _>(OpenError::Unusable { path: folder.path(), source })
    });
    assert!(refused.unwrap_err().to_string().contains("not in this house"));
    folder.open();
}
