//! The table of other servers' relay records.

use restante_federation_proto::ServerName;
use restante_relay_api::RelayRecord;
use restante_sqlite::rusqlite::{self, Connection, OptionalExtension, Row, params};

use super::{checksum, number, timestamp};
use crate::relay_records::{LearnedFrom, Recorded};

/// Records that are kept: more servers than a homeserver of some thousand users is in touch with; each has 16 KiB at most.
pub(crate) const RECORDS_MAX: u32 = 10_000;

/// How many of them may be of servers to which nothing was sent lately: anybody can have names.
const STRANGERS_MAX: u32 = RECORDS_MAX / 4;

const COLUMNS: &str = "record, sha256, learned_from, learned_at";

/// What is known of `server`; what the disk altered counts as unknown.
pub(crate) fn load(
    connection: &Connection,
    server: &ServerName,
) -> rusqlite::Result<Option<Recorded>> {
    let sql = format!("SELECT {COLUMNS} FROM relay_records WHERE server = ?1");
    let row = connection.prepare_cached(&sql)?.query_row([server.as_str()], read).optional()?;
    Ok(row.flatten().filter(|known| known.record.server_name == *server))
}

/// What was learned last, at most `limit`.
pub(crate) fn newest(connection: &Connection, limit: u32) -> rusqlite::Result<Vec<Recorded>> {
    let sql = format!("SELECT {COLUMNS} FROM relay_records ORDER BY learned_at DESC LIMIT ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map([limit], read)?.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(rows.into_iter().flatten().collect())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Option<Recorded>> {
    let json = checksum::whole(row, 0, 1)?;
    let (from, learned_at): (String, i64) = (row.get(2)?, row.get(3)?);
    Ok(json.and_then(|json| {
        let record: RelayRecord = serde_json::from_slice(&json).ok()?;
        let learned_from = LearnedFrom::read(&from)?;
        Some(Recorded { record, learned_from, learned_at: timestamp(learned_at) })
    }))
}

/// Puts a record in the place of what was known of its server. `false` if there is no room: each that is kept is needed
/// more.
pub(crate) fn put(
    connection: &Connection,
    json: &[u8],
    recorded: &Recorded,
) -> rusqlite::Result<bool> {
    let has_room = make_room(connection, &recorded.record.server_name)?;
    if has_room {
        insert(connection, json, recorded)?;
    }
    Ok(has_room)
}

fn insert(connection: &Connection, json: &[u8], recorded: &Recorded) -> rusqlite::Result<()> {
    let Recorded { record, learned_from, learned_at } = recorded;
    let sql =
        "INSERT OR REPLACE INTO relay_records (server, record, sha256, learned_from, learned_at)
               VALUES (?1, ?2, ?3, ?4, ?5)";
    connection.prepare_cached(sql)?.execute(params![
        record.server_name.as_str(),
        json,
        checksum::checksum(json),
        learned_from.to_string(),
        number(learned_at.as_millis()),
    ])?;
    Ok(())
}

/// Servers to which nothing was sent lately make room first: whoever has many names could otherwise drive out the records
/// that mail needs.
fn make_room(connection: &Connection, server: &ServerName) -> rusqlite::Result<bool> {
    let counted = "SELECT count(*), coalesce(sum(server = ?1), 0),
                          EXISTS (SELECT 1 FROM ledger WHERE destination = ?1) FROM relay_records";
    let numbers = |row: &Row<'_>| Ok((row.get::<_, u32>(0)?, row.get::<_, u32>(1)?, row.get(2)?));
    let (count, known, is_sent_to): (u32, u32, bool) =
        connection.prepare_cached(counted)?.query_row([server.as_str()], numbers)?;
    let room = if is_sent_to { RECORDS_MAX } else { STRANGERS_MAX };
    if known > 0 || count < room {
        return Ok(true);
    }
    if !is_sent_to && count < RECORDS_MAX {
        let strangers = format!("SELECT count(*) FROM relay_records AS known WHERE {STRANGER}");
        let strangers: u32 =
            connection.prepare_cached(&strangers)?.query_row([], |row| row.get(0))?;
        if strangers < STRANGERS_MAX {
            return Ok(true);
        }
    }
    Ok(forget_oldest(connection, STRANGER)?
        || (is_sent_to && forget_oldest(connection, NOT_WAITING)?))
}

/// Nothing was sent to the server of this record for as long as the ledger remembers, which is some weeks.
const STRANGER: &str = "NOT EXISTS (SELECT 1 FROM ledger WHERE ledger.destination = known.server)";

/// No mail for the server of this record waits to be taken. What nobody has taken waits at the homeserver, and comes again.
const NOT_WAITING: &str = "NOT EXISTS (
    SELECT 1 FROM ledger WHERE ledger.destination = known.server AND delivered_at IS NULL
    AND NOT EXISTS (SELECT 1 FROM ledger_holders AS holders
                    WHERE holders.destination = ledger.destination AND holders.seq = ledger.seq))";

fn forget_oldest(connection: &Connection, which: &str) -> rusqlite::Result<bool> {
    let forgotten = format!(
        "DELETE FROM relay_records WHERE server = (
             SELECT server FROM relay_records AS known WHERE {which} ORDER BY learned_at LIMIT 1)"
    );
    Ok(connection.prepare_cached(&forgotten)?.execute([])? > 0)
}

#[cfg(test)]
mod tests {
    use restante_federation_proto::Timestamp;

    use super::*;
    use crate::test_site::name;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn recorded(server: &str, at: u64) -> (Vec<u8>, Recorded) {
        let record = RelayRecord { server_name: name(server), relays: Vec::new(), version: NOW };
        let json = serde_json::to_vec(&record).unwrap();
        let learned_at = Timestamp::from_millis(at);
        (json, Recorded { record, learned_from: LearnedFrom::Mail, learned_at })
    }

    fn put_one(connection: &Connection, server: &str, at: u64) -> bool {
        let (json, recorded) = recorded(server, at);
        put(connection, &json, &recorded).unwrap()
    }

    /// Puts one in while there is room for sure.
    fn fill(connection: &Connection, server: &str, at: u64) {
        let (json, recorded) = recorded(server, at);
        insert(connection, &json, &recorded).unwrap();
    }

    fn sent(connection: &Connection, server: &str, delivered: Option<i64>) {
        let sql =
            "INSERT INTO ledger (destination, seq, txn_id, content_sha256, first_at, delivered_at)
                   VALUES (?1, 1, 't', x'00', 1, ?2)";
        connection.execute(sql, params![server, delivered]).unwrap();
    }

    fn is_known(connection: &Connection, server: &str) -> bool {
        load(connection, &name(server)).unwrap().is_some()
    }

    #[tokio::test]
    async fn the_one_learned_longest_ago_makes_room_unless_mail_waits_for_its_server() {
        let folder = tempfile::tempdir().unwrap();
        let database = crate::store::open(folder.path()).unwrap();
        let known = database.write(|connection| {
            for n in 0..RECORDS_MAX {
                let server = format!("s{n}.test");
                // Mail for the first waits; that for the second is held, and the rest has been delivered.
                sent(connection, &server, (n > 1).then_some(1));
                fill(connection, &server, n.into());
            }
            let held = "INSERT INTO ledger_holders (destination, seq, relay, since)
                        VALUES ('s1.test', 1, 'r.test', 1)";
            connection.execute(held, [])?;
            assert!(!put_one(connection, "stranger.test", 99_998), "it makes nobody go");
            sent(connection, "new.test", None);
            assert!(put_one(connection, "new.test", 99_999));
            let servers = ["s0.test", "s1.test", "s2.test", "new.test"];
            Ok(servers.map(|server| is_known(connection, server)))
        });
        assert_eq!(known.await.unwrap(), [true, false, true, true]);
    }

    #[tokio::test]
    async fn strangers_fill_a_quarter_at_most_and_make_room_before_whoever_was_sent_to() {
        let folder = tempfile::tempdir().unwrap();
        let database = crate::store::open(folder.path()).unwrap();
        let known = database.write(|connection| {
            for n in 0..RECORDS_MAX - STRANGERS_MAX {
                let server = format!("s{n}.test");
                sent(connection, &server, Some(1));
                fill(connection, &server, n.into());
            }
            for n in 0..STRANGERS_MAX {
                fill(connection, &format!("x{n}.test"), u64::from(RECORDS_MAX + n));
            }
            for n in [90_000, 90_001] {
                assert!(put_one(connection, &format!("x{n}.test"), n));
            }
            let servers = ["s0.test", "x0.test", "x1.test", "x2.test"];
            let before = servers.map(|server| is_known(connection, server));
            sent(connection, "new.test", None);
            assert!(put_one(connection, "new.test", 99_999));
            Ok((before, servers.map(|server| is_known(connection, server))))
        });
        let (before, after) = known.await.unwrap();
        assert_eq!((before, after), ([true, false, false, true], [true, false, false, false]));
    }

    #[tokio::test]
    async fn a_quarter_is_the_bound_also_while_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let database = crate::store::open(folder.path()).unwrap();
        let known = database.write(|connection| {
            for n in 0..STRANGERS_MAX {
                fill(connection, &format!("x{n}.test"), n.into());
            }
            assert!(put_one(connection, "new.test", 90_000));
            Ok(["x0.test", "x1.test"].map(|server| is_known(connection, server)))
        });
        assert_eq!(known.await.unwrap(), [false, true]);
    }

    #[tokio::test]
    async fn a_record_that_the_disk_altered_counts_as_unknown() {
        let folder = tempfile::tempdir().unwrap();
        let database = crate::store::open(folder.path()).unwrap();
        let read = database.write(|connection| {
            put_one(connection, "b.test", 1);
            assert!(load(connection, &name("b.test"))?.is_some());
            connection.execute("UPDATE relay_records SET record = CAST(replace(CAST(record AS TEXT), '17', '18') AS BLOB)", [])?;
            Ok((load(connection, &name("b.test"))?, newest(connection, 9)?.len()))
        });
        assert_eq!(read.await.unwrap(), (None, 0));
    }
}
