use restante_sqlite::{Limits, StoreError};

use crate::support::{Folder, add, long_read, notes};

#[tokio::test]
async fn a_read_sees_every_write_that_returned_before() {
    let folder = Folder::new();
    let database = folder.open();

    for count in 1..=50 {
        database.write(add(&count.to_string())).await.unwrap();
        assert_eq!(database.read(notes).await.unwrap().len(), count);
    }
}

#[tokio::test]
async fn a_read_stays_on_its_snapshot_while_writes_go_on() {
    let folder = Folder::new();
    let database = folder.open();
    database.write(add("before")).await.unwrap();

    let reading = long_read(&database).await;
    database.write(add("meanwhile")).await.unwrap();

    let (first, second) = reading.end().await;
    assert_eq!(first, ["before"]);
    assert_eq!(second, first);
}

#[tokio::test]
async fn a_read_can_not_write() {
    let folder = Folder::new();
    let database = folder.open();

    let result = database.read(|connection| add("smuggled")(connection)).await;

    assert!(matches!(result, Err(StoreError::Sqlite(_))));
    assert!(folder.seen_from_outside().is_empty());
}

#[tokio::test]
async fn a_panicking_read_leaves_its_reader_usable() {
    let folder = Folder::new();
    let database = folder.open_with(Limits { readers: 1, ..Limits::default() });

    let result =
        database.read(|_| -> restante_sqlite::rusqlite::Result<()> { panic!("on purpose") });

    assert!(matches!(result.await, Err(StoreError::Panicked)));
    assert!(database.read(notes).await.unwrap().is_empty());
}
