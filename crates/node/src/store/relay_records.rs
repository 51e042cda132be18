//! The table of other servers' relay records.

use restante_federation_proto::ServerName;
use restante_relay_api::RelayRecord;
use restante_sqlite::rusqlite::{self, Connection, OptionalExtension, Row, params};

use super::{checksum, number, timestamp};
use crate::relay_records::{LearnedFrom, Recorded};

/// Records that are kept: more servers than a homeserver of some thousand users is in touch with; each has 16 KiB at most.
pub(crate) const RECORDS_MAX: u32 = 10_000;

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
/// for mail that waits.
pub(crate) fn put(
    connection: &Connection,
    json: &[u8],
    recorded: &Recorded,
) -> rusqlite::Result<bool> {
    let Recorded { record, learned_from, learned_at } = recorded;
    if !make_room(connection, &record.server_name)? {
        return Ok(false);
    }
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
    Ok(true)
}

fn make_room(connection: &Connection, server: &ServerName) -> rusqlite::Result<bool> {
    let counted = "SELECT count(*), coalesce(sum(server = ?1), 0) FROM relay_records";
    let numbers = |row: &Row<'_>| Ok((row.get::<_, u32>(0)?, row.get::<_, u32>(1)?));
    let (count, known) =
        connection.prepare_cached(counted)?.query_row([server.as_str()], numbers)?;
    if known > 0 || count < RECORDS_MAX {
        return Ok(true);
    }
    // What nobody has taken yet waits at the homeserver, and comes again.
    let forgotten = "DELETE FROM relay_records WHERE server = (
                         SELECT server FROM relay_records AS known WHERE NOT EXISTS (
                             SELECT 1 FROM ledger WHERE ledger.destination = known.server AND delivered_at IS NULL
                             AND NOT EXISTS (SELECT 1 FROM ledger_holders AS holders
                                             WHERE holders.destination = ledger.destination AND holders.seq = ledger.seq))
                         ORDER BY learned_at LIMIT 1)";
    Ok(connection.prepare_cached(forgotten)?.execute([])? > 0)
}

#[cfg(test)]
mod tests {
    use restante_federation_proto::Timestamp;

    use super::*;
    use crate::test_site::name;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn put_one(connection: &Connection, server: &str, at: u64) -> bool {
        let record = RelayRecord { server_name: name(server), relays: Vec::new(), version: NOW };
        let json = serde_json::to_vec(&record).unwrap();
        let learned_at = Timestamp::from_millis(at);
        let recorded = Recorded { record, learned_from: LearnedFrom::Mail, learned_at };
        put(connection, &json, &recorded).unwrap()
    }

    #[tokio::test]
    async fn the_one_learned_longest_ago_makes_room_unless_mail_waits_for_its_server() {
        let folder = tempfile::tempdir().unwrap();
        let database = crate::store::open(folder.path()).unwrap();
        let known = database.write(|connection| {
            for n in 0..RECORDS_MAX {
                assert!(put_one(connection, &format!("s{n}.test"), n.into()));
            }
            let waiting = "INSERT INTO ledger (destination, seq, txn_id, content_sha256, first_at)
                           VALUES ('s0.test', 1, 't', x'00', 1), ('s1.test', 1, 't', x'00', 1)";
            connection.execute(waiting, [])?;
            let held = "INSERT INTO ledger_holders (destination, seq, relay, since)
                        VALUES ('s1.test', 1, 'r.test', 1)";
            connection.execute(held, [])?;
            assert!(put_one(connection, "new.test", 99_999));
            let known = |server: &str| load(connection, &name(server)).map(|known| known.is_some());
            Ok([known("s0.test")?, known("s1.test")?, known("s2.test")?, known("new.test")?])
        });
        assert_eq!(known.await.unwrap(), [true, false, true, true]);
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
