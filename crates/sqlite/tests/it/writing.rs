use restante_sqlite::rusqlite::Connection;
use restante_sqlite::{Limits, StoreError};

use crate::support::{Folder, add, keep_busy, long_read, notes, queue};

#[tokio::test]
async fn a_write_that_returned_is_seen_by_another_program() {
    let folder = Folder::new();
    let database = folder.open();

    for text in ["one", "two", "three"] {
        database.write(add(text)).await.unwrap();
        assert_eq!(folder.seen_from_outside().last().unwrap(), text);
    }
}

#[tokio::test]
async fn a_failing_write_takes_nothing_else_of_its_group_with_it() {
    let folder = Folder::new();
    let database = folder.open();
    let busy = keep_busy(&database).await;

    let before = queue(&database, add("before")).await;
    let failing = queue(&database, |connection| {
        connection.execute("INSERT INTO notes (text) VALUES ('undone')", [])?;
        connection.execute("INSERT INTO notes (text) VALUES ('before')", []).map(drop)
    })
    .await;
    let after = queue(&database, add("after")).await;
    busy.end().await;

    before.await.unwrap();
    assert!(matches!(failing.await, Err(StoreError::Sqlite(_))));
    after.await.unwrap();
    assert_eq!(folder.seen_from_outside(), ["before", "after"]);
}

#[tokio::test]
async fn a_panicking_write_is_undone_and_the_writer_goes_on() {
    let folder = Folder::new();
    let database = folder.open();
    let busy = keep_busy(&database).await;

    let before = queue(&database, add("before")).await;
    let panicking = queue(&database, |connection| {
        connection.execute("INSERT INTO notes (text) VALUES ('undone')", [])?;
        panic!("on purpose")
    })
    .await;
    busy.end().await;

    before.await.unwrap();
    assert!(matches!(panicking.await, Err(StoreError::Panicked)));
    database.write(add("after")).await.unwrap();
    assert_eq!(folder.seen_from_outside(), ["before", "after"]);
}

#[tokio::test]
async fn a_failed_commit_fails_every_write_of_its_group_and_no_other() {
    let folder = Folder::new();
    let database = folder.open();
    database.write(add("earlier")).await.unwrap();
    let busy = keep_busy(&database).await;

    let first = queue(&database, add("first")).await;
    // The reference is checked at the commit.
    let dangling = queue(&database, |connection| {
        connection.execute("INSERT INTO replies (note) VALUES (999)", []).map(drop)
    })
    .await;
    busy.end().await;

    assert!(matches!(first.await, Err(StoreError::Sqlite(_))));
    assert!(matches!(dangling.await, Err(StoreError::Sqlite(_))));
    database.write(add("later")).await.unwrap();
    assert_eq!(folder.seen_from_outside(), ["earlier", "later"]);
}

#[tokio::test]
async fn a_transaction_lost_midway_fails_what_ran_and_spares_what_did_not() {
    let folder = Folder::new();
    let database = folder.open();
    database.write(add("earlier")).await.unwrap();
    let busy = keep_busy(&database).await;

    let lost = queue(&database, add("lost")).await;
    let destroying = queue(&database, |connection| {
        connection.execute("INSERT OR ROLLBACK INTO notes (text) VALUES ('earlier')", []).map(drop)
    })
    .await;
    let spared = queue(&database, add("spared")).await;
    busy.end().await;

    assert!(matches!(lost.await, Err(StoreError::Sqlite(_))));
    assert!(matches!(destroying.await, Err(StoreError::Sqlite(_))));
    spared.await.unwrap();
    assert_eq!(folder.seen_from_outside(), ["earlier", "spared"]);
}

#[tokio::test]
async fn a_full_disk_refuses_what_needs_room_and_keeps_what_is_there() {
    let folder = Folder::new();
    let database = folder.open();
    database.write(add("kept")).await.unwrap();
    database
        .write(|connection| {
            let pages: u32 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
            connection.pragma_update(None, "max_page_count", pages)
        })
        .await
        .unwrap();

    let refused = database.write(add(&"long ".repeat(100_000))).await;

    assert!(matches!(refused, Err(StoreError::DiskFull)));
    assert_eq!(database.read(notes).await.unwrap(), ["kept"]);
    database.write(add("small")).await.unwrap();
    assert_eq!(folder.seen_from_outside(), ["kept", "small"]);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let folder = Folder::new();
    let database = folder.open_with(Limits { waiting_writes_max: 1, ..Limits::default() });
    let busy = keep_busy(&database).await;

    let waiting = queue(&database, add("waiting")).await;
    let refused = database.write(add("refused")).await;

    assert!(matches!(refused, Err(StoreError::Busy)));
    busy.end().await;
    waiting.await.unwrap();
    assert_eq!(folder.seen_from_outside(), ["waiting"]);
}

#[tokio::test]
async fn a_write_runs_even_if_nobody_waits_for_it() {
    let folder = Folder::new();
    let database = folder.open();
    let busy = keep_busy(&database).await;

    drop(queue(&database, add("abandoned")).await);
    busy.end().await;
    drop(database);

    assert_eq!(folder.seen_from_outside(), ["abandoned"]);
}

#[tokio::test]
async fn the_last_clone_may_live_in_a_write() {
    let folder = Folder::new();
    let database = folder.open();
    let clone = database.clone();
    let (ended, end) = tokio::sync::oneshot::channel();

    let answer = queue(&database, move |_| {
        ended.send(()).unwrap();
        drop(clone);
        Ok(())
    })
    .await;
    drop((database, answer));

    end.await.unwrap();
}

#[tokio::test]
async fn the_log_stays_short_however_much_is_written() {
    let folder = Folder::new();
    let database = folder.open_with(Limits { log_pages: 8, ..Limits::default() });
    let fill = |connection: &Connection| {
        connection.execute("INSERT INTO notes (text) VALUES (hex(randomblob(2048)))", [])
    };
    for _ in 0..2000 {
        database.write(fill).await.unwrap();
    }
    let log = std::fs::metadata(folder.path().with_extension("sqlite-wal")).unwrap().len();
    // At 32 times 8 pages the writer waits, and 2000 writes changed some thousands.
    assert!(log < 400 * 4096, "the log has {log} bytes");
    drop(database);
    assert_eq!(folder.seen_from_outside().len(), 2000);
}

#[tokio::test]
async fn the_log_begins_anew_once_a_read_that_needs_it_has_ended() {
    let folder = Folder::new();
    let database = folder.open_with(Limits { log_pages: 4, ..Limits::default() });
    database.write(add("before")).await.unwrap();
    let reading = long_read(&database).await;
    for number in 0..500 {
        database.write(add(&format!("{number}"))).await.unwrap();
    }
    let log = folder.path().with_extension("sqlite-wal");
    let grown = std::fs::metadata(&log).unwrap().len();
    let (first, last) = reading.end().await;
    assert_eq!((first.len(), last.len()), (1, 1), "the snapshot holds");
    for number in 500..1000 {
        database.write(add(&format!("{number}"))).await.unwrap();
    }
    let later = std::fs::metadata(&log).unwrap().len();
    // The writer waits for the mover after 128 pages; a log that never begins anew has a thousand more.
    assert!(later < grown + 160 * 4096, "it went on from {grown} to {later} bytes");
    assert_eq!(database.read(notes).await.unwrap().len(), 1001);
}
