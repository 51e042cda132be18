//! Envelopes: a transaction with its proof and waybill, held for one recipient.

use std::time::Duration;

use bytes::Bytes;
use restante_federation_proto::{ServerName, Timestamp};

/// How long mail is kept that is of the moment: homeservers forget typing after 30 s and presence after some minutes. Nothing
/// else is kept for exactly so long.
pub const OF_THE_MOMENT: Duration = Duration::from_secs(60);

/// SHA-256 of a transaction's canonical content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentHash(pub [u8; 32]);

/// An envelope's number in its mailbox: ascending, from a random offset, never 0, at most 2^53 - 1
/// so that every JSON reader keeps it whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(u64);

impl EntryId {
    /// The highest id.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// The id `id`, if it is one: 1 to 2^53 - 1.
    pub fn new(id: u64) -> Option<Self> {
        (1..1 << 53).contains(&id).then_some(Self(id))
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// Where a mailbox starts to count, from a random number: so high that nobody guesses an id of
    /// a mailbox that was created anew, and so low that 2^52 ids are left.
    pub(crate) fn first(random: u64) -> Self {
        const OFFSETS: std::ops::Range<u64> = 1 << 32..1 << 50;
        Self(OFFSETS.start + random % (OFFSETS.end - OFFSETS.start))
    }

    /// Where a mailbox that was restored from a backup goes on: beyond every id that it can have given out since the backup was
    /// made, so that no acknowledgement of those hits other mail, and above the cursor of whoever collects from it.
    pub(crate) fn after_restore(self, random: u64) -> Self {
        // At a million envelopes a second a mailbox gives out 2^40 ids in twelve days; 2^53 leave room for 400 restores.
        const GAP: u64 = 1 << 40;
        const SPREAD: u64 = 1 << 44;
        Self::new(self.0 + GAP + random % SPREAD).unwrap_or_else(|| Self::first(random))
    }

    /// The id after this one; none after the highest.
    pub(crate) fn next(self) -> Option<Self> {
        Self::new(self.0 + 1)
    }
}

/// Whether a relay is to deliver an envelope to its recipient itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Onward {
    /// It waits for its recipient to call.
    #[default]
    No = 0,
    /// Its origin asked for it.
    Wanted = 1,
    /// Its origin asked for it, and its recipient refused: it waits to be collected.
    Refused = 2,
}

impl Onward {
    /// What a backend wrote as `number`. What is none was damaged: then nobody is called for it.
    pub(crate) fn of(number: i64) -> Self {
        match number {
            1 => Self::Wanted,
            2 => Self::Refused,
            _ => Self::No,
        }
    }
}

/// What a caller leaves, already verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deposit {
    /// Whose mailbox.
    pub recipient: ServerName,
    /// Who sent it: the proof's origin, or without a proof the authenticated caller.
    pub origin: ServerName,
    /// The transaction's id.
    pub txn_id: String,
    /// SHA-256 of the canonical content.
    pub content_hash: ContentHash,
    /// The content as received, without `org.restante.*` members.
    pub content: Bytes,
    /// The `org.restante.*` members as one JSON object, as received; empty when there were none.
    pub members: Bytes,
    /// When the relay took it.
    pub deposited_at: Timestamp,
    /// When it leaves the mailbox if nobody has collected it by then.
    pub expires_at: Timestamp,
    /// Whether the relay delivers it itself.
    pub onward: Onward,
}

impl Deposit {
    /// Bytes of content and members, which limits and depth count.
    pub fn bytes(&self) -> u64 {
        (self.content.len() + self.members.len()) as u64
    }

    /// Whether it is worth nothing once it has expired, so that nobody needs to hear of it.
    pub(crate) fn is_of_the_moment(&self) -> bool {
        is_of_the_moment(self.expires_at.since(self.deposited_at))
    }
}

/// The same of mail that was to be kept for so long.
pub(crate) fn is_of_the_moment(kept: Duration) -> bool {
    kept == OF_THE_MOMENT
}

/// An envelope as it stands in a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEnvelope {
    /// Its number there.
    pub id: EntryId,
    /// What was left.
    pub deposit: Deposit,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_id_is_an_id_and_the_last() {
        assert_eq!(EntryId::new(EntryId::MAX.get()), Some(EntryId::MAX));
        assert_eq!(EntryId::MAX.next(), None);
    }

    #[test]
    fn ids_are_1_to_what_every_json_reader_keeps() {
        assert_eq!(EntryId::new(0), None);
        assert_eq!(EntryId::new(1 << 53), None);
        assert_eq!(EntryId::new(1).map(EntryId::get), Some(1));
        let highest = EntryId::new((1 << 53) - 1).unwrap();
        assert_eq!(highest.next(), None);
    }

    #[test]
    fn mailboxes_begin_anywhere_from_two_to_the_32nd_to_two_to_the_50th() {
        let (lowest, beyond) = (1_u64 << 32, 1_u64 << 50);
        let first = |random| EntryId::first(random).get();
        assert_eq!((first(0), first(12_345_678_901)), (lowest, lowest + 12_345_678_901));
        assert_eq!((first(beyond - lowest - 1), first(beyond - lowest)), (beyond - 1, lowest));
        assert!((lowest..beyond).contains(&first(u64::MAX)));
    }
}
