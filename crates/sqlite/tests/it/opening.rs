use std::path::Path;

use restante_sqlite::rusqlite::Connection;
use restante_sqlite::{Database, Limits, Migration, OpenError, Schema};

use crate::support::{Folder, NOTES, add, notes};

const FIRST: Migration =
    Migration { sql: "CREATE TABLE steps (name TEXT); INSERT INTO steps VALUES ('first')" };
const SECOND: Migration = Migration { sql: "INSERT INTO steps VALUES ('second')" };
const BROKEN: Migration = Migration { sql: "INSERT INTO steps VALUES ('broken'); SELECT nonsense" };

fn steps(migrations: &'static [Migration]) -> Schema {
    Schema { kind: "steps", application_id: 77, migrations }
}

fn open(path: &Path, schema: &Schema) -> Result<Database, OpenError> {
    Database::open(path, schema, Limits::default())
}

async fn taken(database: &Database) -> Vec<String> {
    database
        .read(|connection| {
            let mut statement = connection.prepare("SELECT name FROM steps ORDER BY rowid")?;
            statement.query_map([], |row| row.get(0))?.collect()
        })
        .await
        .unwrap()
}

#[tokio::test]
async fn a_second_start_finds_everything_again() {
    let folder = Folder::new();
    let database = folder.open();
    database.write(add("kept")).await.unwrap();
    drop(database);

    assert_eq!(folder.open().read(notes).await.unwrap(), ["kept"]);
}

#[tokio::test]
async fn a_clean_close_leaves_no_log_behind() {
    let folder = Folder::new();
    let database = folder.open();
    database.write(add("kept")).await.unwrap();
    drop(database);

    assert!(!folder.path().with_extension("sqlite-wal").exists());
}

#[tokio::test]
async fn a_database_that_is_open_is_in_use() {
    let folder = Folder::new();
    let database = folder.open();

    assert!(matches!(open(&folder.path(), &NOTES), Err(OpenError::InUse { .. })));
    drop(database);
    open(&folder.path(), &NOTES).unwrap();
}

#[tokio::test]
async fn migrations_are_taken_step_by_step_and_each_only_once() {
    let folder = Folder::new();

    let database = open(&folder.path(), &steps(&[FIRST])).unwrap();
    assert_eq!(taken(&database).await, ["first"]);
    drop(database);

    for _ in 0..2 {
        let database = open(&folder.path(), &steps(&[FIRST, SECOND])).unwrap();
        assert_eq!(taken(&database).await, ["first", "second"]);
    }
}

#[tokio::test]
async fn a_failed_migration_leaves_the_version_before_it() {
    let folder = Folder::new();

    let failed = open(&folder.path(), &steps(&[FIRST, BROKEN]));

    assert!(matches!(failed, Err(OpenError::Migration { version: 2, .. })));
    let database = open(&folder.path(), &steps(&[FIRST, SECOND])).unwrap();
    assert_eq!(taken(&database).await, ["first", "second"]);
}

#[tokio::test]
async fn a_newer_schema_is_refused_untouched() {
    let folder = Folder::new();
    drop(open(&folder.path(), &steps(&[FIRST, SECOND])).unwrap());
    let before = std::fs::read(folder.path()).unwrap();

    let refused = open(&folder.path(), &steps(&[FIRST]));

    assert!(matches!(refused, Err(OpenError::Newer { found: 2, known: 1, .. })));
    assert_eq!(std::fs::read(folder.path()).unwrap(), before);
}

#[tokio::test]
async fn a_database_of_another_program_is_refused_untouched() {
    let folder = Folder::new();
    let other = Connection::open(folder.path()).unwrap();
    other.execute_batch("CREATE TABLE theirs (a)").unwrap();
    other.close().unwrap();
    let before = std::fs::read(folder.path()).unwrap();

    assert!(matches!(open(&folder.path(), &NOTES), Err(OpenError::Foreign { .. })));
    assert_eq!(std::fs::read(folder.path()).unwrap(), before);
}

#[tokio::test]
async fn another_kind_of_database_is_refused() {
    let folder = Folder::new();
    drop(folder.open());

    assert!(matches!(open(&folder.path(), &steps(&[FIRST])), Err(OpenError::Foreign { .. })));
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_untouched() {
    let folder = Folder::new();
    let letter = "not a database, ".repeat(100);
    std::fs::write(folder.path(), &letter).unwrap();

    assert!(matches!(open(&folder.path(), &NOTES), Err(OpenError::Foreign { .. })));
    assert_eq!(std::fs::read_to_string(folder.path()).unwrap(), letter);
}

#[tokio::test]
async fn a_missing_folder_is_unwritable() {
    let folder = Folder::new();
    let path = folder.path().join("missing").join("notes.sqlite");

    let error = open(&path, &NOTES).unwrap_err();

    assert!(matches!(error, OpenError::Unwritable { .. }));
    assert!(error.to_string().contains("check that the folder exists"), "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_may_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let database = folder.open();
    database.write(add("secret")).await.unwrap();

    for extension in ["sqlite", "sqlite-wal", "sqlite-shm", "sqlite.lock"] {
        let file = folder.path().with_extension(extension);
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
}
