//! A page that can't be read any more.

use std::io;
use std::path::Path;

use rusqlite::Connection;

/// Bytes of a page.
const PAGE_BYTES: u32 = 4096;

/// Breaks the first page of that sort (`leaf`, `internal` or `overflow`) which `table` has in the database at `file`. Nobody may have it open
/// who is to notice: SQLite keeps pages in memory.
pub fn lose_page(file: &Path, table: &str, sort: &str) -> io::Result<()> {
    let sql =
        "SELECT pageno, pgsize FROM dbstat WHERE name = ?1 AND pagetype = ?2 ORDER BY path LIMIT 1";
    let found = Connection::open(file)
        .and_then(|database| {
            database.query_row(sql, [table, sort], |row| Ok((row.get(0)?, row.get(1)?)))
        })
        .map_err(io::Error::other)?;
    let (page, page_bytes): (u32, u32) = found;
    if page_bytes != PAGE_BYTES {
        return Err(io::Error::other(format!("a page of {page_bytes} bytes")));
    }
    let mut bytes = std::fs::read(file)?;
    bytes[(page as usize - 1) * PAGE_BYTES as usize..][..4].fill(0xff);
    std::fs::write(file, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_on_the_page_can_not_be_read_and_the_rest_can() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("numbers.sqlite");
        let database = Connection::open(&file).unwrap();
        let sql = "CREATE TABLE numbers (number INTEGER PRIMARY KEY, text TEXT);
            WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
            INSERT INTO numbers SELECT i, 'number ' || i FROM n;";
        database.execute_batch(sql).unwrap();
        drop(database);

        lose_page(&file, "numbers", "leaf").unwrap();

        let database = Connection::open(&file).unwrap();
        let read = |number: i64| {
            let sql = "SELECT text FROM numbers WHERE number = ?1";
            database.query_row(sql, [number], |row| row.get::<_, String>(0))
        };
        let code = read(1).unwrap_err().sqlite_error_code();
        assert_eq!(code, Some(rusqlite::ErrorCode::DatabaseCorrupt));
        assert_eq!(read(1000).unwrap(), "number 1000");
        assert!(lose_page(&file, "letters", "leaf").is_err(), "there is no such table");
    }
}
