//! The table of own relays that are being left.

use std::collections::BTreeMap;

use restante_federation_proto::ServerName;
use restante_relay_api::LeftMail;
use restante_sqlite::rusqlite::{self, Connection, params};

use super::{number, timestamp};
use crate::relay_book::{Departure, DepartureState};

/// All of them. Rows that do not read are left out.
pub(crate) fn load(connection: &Connection) -> rusqlite::Result<BTreeMap<ServerName, Departure>> {
    let rows = connection
        .prepare_cached("SELECT relay, mail, state, since FROM departures")?
        .query_map([], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, String>(2)?,
                row.get::<_, i64>(3)?,
            ))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let read = |(relay, mail, state, since): (String, String, String, i64)| {
        let mail = [LeftMail::Drop, LeftMail::Keep].into_iter().find(|one| word(*one) == mail)?;
        let states = [DepartureState::Asked, DepartureState::Told, DepartureState::Done];
        let state = states.into_iter().find(|one| step(*one) == state)?;
        Some((relay.parse().ok()?, Departure { mail, state, since: timestamp(since) }))
    };
    Ok(rows.into_iter().filter_map(read).collect())
}

/// Notes how far one is.
pub(crate) fn put(
    connection: &Connection,
    relay: &ServerName,
    departure: Departure,
) -> rusqlite::Result<()> {
    let Departure { mail, state, since } = departure;
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO departures (relay, mail, state, since) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![relay.as_str(), word(mail), step(state), number(since.as_millis())])?;
    Ok(())
}

/// Forgets one.
pub(crate) fn remove(connection: &Connection, relay: &ServerName) -> rusqlite::Result<()> {
    let sql = "DELETE FROM departures WHERE relay = ?1";
    connection.prepare_cached(sql)?.execute([relay.as_str()])?;
    Ok(())
}

fn word(mail: LeftMail) -> &'static str {
    match mail {
        LeftMail::Drop => "drop",
        LeftMail::Keep => "keep",
    }
}

fn step(state: DepartureState) -> &'static str {
    match state {
        DepartureState::Asked => "asked",
        DepartureState::Told => "told",
        DepartureState::Done => "done",
    }
}
