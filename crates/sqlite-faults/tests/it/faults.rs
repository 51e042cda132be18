use restante_sqlite_faults::{Fault, Lasts, Operation, Trouble};
use rusqlite::ErrorCode;

use crate::notes::{Manner, add, count, database, open, site};

const MANNER: Manner = Manner { journal: "wal", synchronous: "FULL" };

fn code_of(operation: Operation, trouble: Trouble) -> Option<ErrorCode> {
    let site = site();
    let notes = open(&database(&site), MANNER).unwrap();
    // So that there is something to read, to truncate and to delete.
    notes.execute_batch("PRAGMA cache_size = 1").unwrap();
    add(&notes, 5);
    let fault = Fault { operation: Some(operation), number: 1, trouble, lasts: Lasts::Once };
    site.disk().fail(fault);
    let outcome = match operation {
        Operation::Open => open(&database(&site), MANNER).map(drop),
        Operation::Delete => notes.execute_batch("PRAGMA journal_mode = delete"),
        Operation::Truncate => notes.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"),
        Operation::Read => count_all(&notes),
        Operation::Write | Operation::Sync => notes.execute("DELETE FROM notes", []).map(drop),
    };
    assert_eq!(site.disk().failed(), 1, "{operation:?} never came");
    outcome.err().and_then(|error| error.sqlite_error_code())
}

fn count_all(notes: &rusqlite::Connection) -> rusqlite::Result<()> {
    notes.query_row("SELECT sum(length(text)) FROM notes", [], |_| Ok(()))
}

#[test]
fn a_full_disk_is_reported_as_one() {
    assert_eq!(code_of(Operation::Write, Trouble::Full), Some(ErrorCode::DiskFull));
}

#[test]
fn a_broken_disk_is_reported_as_one() {
    for operation in [Operation::Read, Operation::Write, Operation::Sync] {
        let code = code_of(operation, Trouble::Broken);
        assert_eq!(code, Some(ErrorCode::SystemIoFailure), "{operation:?}");
    }
    assert_eq!(code_of(Operation::Open, Trouble::Broken), Some(ErrorCode::CannotOpen));
}

#[test]
fn a_fault_goes_by_or_stays_until_healed() {
    let site = site();
    let notes = open(&database(&site), MANNER).unwrap();
    let fault =
        Fault { operation: None, number: 1, trouble: Trouble::Full, lasts: Lasts::UntilHealed };
    site.disk().fail(fault);
    assert_eq!((add(&notes, 3), add(&notes, 3)), (0, 0));
    site.disk().heal();
    assert_eq!(add(&notes, 3), 3);

    site.disk().fail(Fault { lasts: Lasts::Once, ..fault });
    assert!(notes.execute("DELETE FROM notes", []).is_err());
    assert_eq!(count(&notes), Ok(3));
    assert_eq!(notes.execute("DELETE FROM notes", []), Ok(3));
}

#[test]
fn a_flipped_bit_is_read_without_an_error_of_the_disk() {
    let mut noticed = 0;
    for number in 1..40 {
        let site = site();
        add(&open(&database(&site), MANNER).unwrap(), 20);
        let notes = open(&database(&site), MANNER).unwrap();
        let operation = Some(Operation::Read);
        let (trouble, lasts) = (Trouble::FlippedBit, Lasts::Once);
        site.disk().fail(Fault { operation, number, trouble, lasts });
        noticed += u32::from(count(&notes) != Ok(20));
    }
    assert!(noticed > 0);
}

#[test]
fn a_read_only_disk_is_read() {
    let site = site();
    let writer = open(&database(&site), MANNER).unwrap();
    add(&writer, 3);

    site.disk().make_read_only();

    assert!(writer.execute("DELETE FROM notes", []).is_err());
    let reader = rusqlite::Connection::open(database(&site)).unwrap();
    assert_eq!(count(&reader), Ok(3));
    assert!(reader.execute("DELETE FROM notes", []).is_err());
}
