//! Databases of every schema so far, kept as text.

use std::path::Path;

use rusqlite::Connection;

/// A database as SQL.
#[derive(Debug)]
pub struct Fixture {
    /// Its schema: how many migrations it has had.
    pub version: u32,
    sql: String,
}

/// Reads `schema_1.sql`, `schema_2.sql`, … in `folder`, one for each of `migrations`.
///
/// An `Err` says what to do: a migration that comes without a fixture would never be tried on what is out there, and a
/// fixture with another schema than the migrations make is not out there.
pub fn fixtures(folder: &Path, migrations: &[&str]) -> Result<Vec<Fixture>, String> {
    (1..=migrations.len()).map(|version| read(folder, &migrations[..version])).collect()
}

fn read(folder: &Path, migrations: &[&str]) -> Result<Fixture, String> {
    let version = migrations.len();
    let path = folder.join(format!("schema_{version}.sql"));
    let told = |trouble: &dyn std::fmt::Display| {
        format!(
            "{}: {trouble}; keep a small database of each schema there, as SQL that holds something of everything",
            path.display()
        )
    };
    let sql = std::fs::read_to_string(&path).map_err(|error| told(&error))?;
    let found = schema(&[&sql]).map_err(|error| told(&error))?;
    let made = schema(migrations).map_err(|error| told(&error))?;
    if found != made {
        return Err(told(&format!("its schema is not what {version} migrations make")));
    }
    Ok(Fixture { version: u32::try_from(version).unwrap_or(u32::MAX), sql })
}

/// Tables, indices and triggers, without white space and comments.
fn schema(batches: &[&str]) -> rusqlite::Result<Vec<String>> {
    let database = Connection::open_in_memory()?;
    batches.iter().try_for_each(|batch| database.execute_batch(batch))?;
    let sql = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY type, name";
    let mut statement = database.prepare(sql)?;
    let texts = statement.query_map([], |row| row.get(0).map(|text: String| bare(&text)))?;
    texts.collect()
}

fn bare(sql: &str) -> String {
    let code = sql.lines().map(|line| line.split("--").next().unwrap_or_default());
    code.flat_map(str::split_whitespace).collect()
}

impl Fixture {
    /// Makes a database file of it.
    pub fn write(&self, path: &Path) -> rusqlite::Result<()> {
        let database = Connection::open(path)?;
        database.execute_batch(&format!("BEGIN; {} COMMIT;", self.sql))?;
        database.close().map_err(|(_, error)| error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIGRATIONS: [&str; 2] = ["CREATE TABLE a (b)", "ALTER TABLE a ADD COLUMN c"];

    fn tried(fixtures_by_version: [&str; 2]) -> Result<Vec<Fixture>, String> {
        let folder = tempfile::tempdir().unwrap();
        for (version, sql) in (1..).zip(fixtures_by_version).filter(|(_, sql)| !sql.is_empty()) {
            std::fs::write(folder.path().join(format!("schema_{version}.sql")), sql).unwrap();
        }
        fixtures(folder.path(), &MIGRATIONS)
    }

    #[test]
    fn every_migration_needs_a_database_of_its_schema() {
        let (first, second) = ("CREATE TABLE a (b -- why\n);", "CREATE TABLE a (b, c);");
        assert_eq!(tried([first, second]).unwrap().len(), 2);
        assert!(tried([first, ""]).unwrap_err().contains("schema_2.sql"));
        assert!(tried([first, first]).unwrap_err().contains("not what 2 migrations make"));
    }

    #[test]
    fn a_fixture_becomes_a_database() {
        let sql = "CREATE TABLE a (b, c); INSERT INTO a VALUES (1, 2); PRAGMA user_version = 2;";
        let fixture = tried(["CREATE TABLE a (b);", sql]).unwrap().remove(1);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("database.sqlite");

        fixture.write(&path).unwrap();

        let database = Connection::open(path).unwrap();
        let number = |sql| database.query_row(sql, [], |row| row.get::<_, u32>(0)).unwrap();
        assert_eq!((number("SELECT b + c FROM a"), number("PRAGMA user_version")), (3, 2));
    }
}
