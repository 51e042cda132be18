//! What another copy of mail adds to the one that is here: its place, and its capsule.

use rusqlite::{Connection, params};

use super::super::number;
use super::super::seen::millis;
use crate::inbox::mail::Mail;

/// A relay may have given it without its waybill, and the next one with it.
pub(super) fn add_place(connection: &Connection, mail: &Mail) -> rusqlite::Result<()> {
    let Some(place) = &mail.place else { return Ok(()) };
    let key = &mail.key;
    connection
        .prepare_cached(
            "UPDATE inbox SET stream = ?4, seq = ?5, deposited_at = ?6
             WHERE origin = ?1 AND txn_id = ?2 AND sha256 = ?3 AND state = 'waiting' AND stream IS NULL",
        )?
        .execute(params![
            key.origin.as_str(),
            key.txn_id,
            key.sha256,
            place.stream,
            number(place.seq),
            millis(place.deposited_at)
        ])
        .map(drop)
}

/// What comes directly has no capsule, nor has what a relay stripped; the copy that was left with another relay has it.
/// The bytes that were added.
pub(super) fn add_capsule(connection: &Connection, mail: &Mail) -> rusqlite::Result<u64> {
    let added = mail.extras.len() as u64;
    if added == 0 {
        return Ok(0);
    }
    let sql = "UPDATE inbox SET extras = ?4, bytes = bytes + ?5
               WHERE origin = ?1 AND txn_id = ?2 AND sha256 = ?3 AND authorization IS NOT NULL
               AND state IN ('waiting', 'delivered') AND length(extras) = 0";
    let key = &mail.key;
    let (origin, extras) = (key.origin.as_str(), mail.extras.as_ref());
    let row = params![origin, key.txn_id, key.sha256, extras, number(added)];
    let rows = connection.prepare_cached(sql)?.execute(row)?;
    Ok(if rows > 0 { added } else { 0 })
}
