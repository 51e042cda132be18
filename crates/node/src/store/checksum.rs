//! Whether a body that was kept is the one that was written: SQLite's pages carry no checksums.

use rusqlite::Row;
use sha2::{Digest, Sha256};

/// Why something is parked that the disk has altered. A good copy of such an event takes its place.
pub(crate) const DAMAGED: &str = "it was altered on this node's disk; check the disk";

/// What is kept beside `body`.
pub(crate) fn checksum(body: &[u8]) -> [u8; 32] {
    checksum_of([body])
}

/// The same of several bodies, one behind the other.
pub(crate) fn checksum_of<const N: usize>(bodies: [&[u8]; N]) -> [u8; 32] {
    let mut hash = Sha256::new();
    bodies.iter().for_each(|body| hash.update(body));
    hash.finalize().into()
}

/// The body in column `body`, if the checksum in column `sha256` fits; what older programs wrote has none.
pub(crate) fn whole(
    row: &Row<'_>,
    body: usize,
    sha256: usize,
) -> rusqlite::Result<Option<Vec<u8>>> {
    let (body, kept): (Vec<u8>, Option<Vec<u8>>) = (row.get(body)?, row.get(sha256)?);
    let fits = kept.is_none_or(|kept| kept == checksum(&body));
    Ok(fits.then_some(body))
}
