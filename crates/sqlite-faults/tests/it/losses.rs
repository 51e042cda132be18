use restante_sqlite_faults::{Lie, Site};

use crate::notes::{Manner, add, count, database, open, site};

const NOTES: u32 = 20;

/// Loses power somewhere while notes are added. `Ok` tells whether all that were answered are there.
fn survives(manner: Manner, lie: Option<Lie>, seed: u64) -> Result<bool, String> {
    let mut site = Site::new(seed, lie).unwrap();
    // From the first operation, while the file is made, to after the last.
    site.disk().cut_power_at(1 + seed % 200);
    let answered = open(&database(&site), manner).map(|notes| add(&notes, NOTES)).unwrap_or(0);

    site.lose_power(seed).unwrap();
    let found = count(&open(&database(&site), manner).map_err(|error| error.to_string())?)?;

    // The commit under way may be there or not.
    assert!(found <= answered + 1, "{found} notes of {answered}");
    Ok(found >= answered)
}

/// Seeds with which answered notes are gone, and with which the file is damaged.
fn played(manner: Manner, lie: Option<Lie>) -> (usize, usize) {
    let outcomes: Vec<_> = (0..200).map(|seed| survives(manner, lie, seed)).collect();
    let lost = outcomes.iter().filter(|outcome| **outcome == Ok(false)).count();
    (lost, outcomes.iter().filter(|outcome| outcome.is_err()).count())
}

#[test]
fn a_log_that_is_synced_at_each_commit_loses_nothing_that_was_answered() {
    let manner = Manner { journal: "wal", synchronous: "FULL" };

    assert_eq!(played(manner, None), (0, 0));
}

#[test]
fn a_journal_whose_deletion_is_synced_loses_nothing_that_was_answered() {
    let manner = Manner { journal: "delete", synchronous: "EXTRA" };

    assert_eq!(played(manner, None), (0, 0));
}

#[test]
fn a_log_that_is_not_synced_at_each_commit_loses_answered_commits_and_no_more() {
    let (lost, damaged) = played(Manner { journal: "wal", synchronous: "NORMAL" }, None);

    assert!(lost > 30, "{lost}");
    assert_eq!(damaged, 0);
}

#[test]
fn without_any_sync_files_are_damaged() {
    for journal in ["wal", "delete"] {
        let (lost, damaged) = played(Manner { journal, synchronous: "OFF" }, None);

        assert!(lost > 5 && damaged > 5, "{journal}: {lost} lost, {damaged} damaged");
    }
}

#[test]
fn a_disk_that_lies_about_syncs_loses_what_was_answered() {
    let manner = Manner { journal: "wal", synchronous: "FULL" };

    let (lost, _) = played(manner, Some(Lie::Log));
    assert!(lost > 30, "{lost}");
    let (lost, damaged) = played(manner, Some(Lie::Everything));
    assert!(lost + damaged > 30, "{lost} lost, {damaged} damaged");
}

#[test]
fn who_had_files_open_goes_on_failing_after_a_loss() {
    let manner = Manner { journal: "wal", synchronous: "FULL" };
    let mut site = site();
    let before = open(&database(&site), manner).unwrap();
    assert_eq!(add(&before, 3), 3);

    site.lose_power(1).unwrap();

    assert!(before.execute("DELETE FROM notes", []).is_err());
    drop(before);
    assert_eq!(count(&open(&database(&site), manner).unwrap()), Ok(3));
}

#[test]
fn folders_that_are_not_watched_are_left_alone() {
    let manner = Manner { journal: "wal", synchronous: "FULL" };
    let (watched, other) = (site(), tempfile::tempdir().unwrap());
    watched.disk().cut_power();
    let path = other.path().join("notes.sqlite");

    assert!(open(&database(&watched), manner).is_err());
    assert_eq!(add(&open(&path, manner).unwrap(), 3), 3);
}
