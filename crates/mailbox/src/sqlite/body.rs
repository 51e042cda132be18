//! How an envelope's bytes lie on the disk: packed together, compressed if that helps, with a
//! checksum over all that is stored.

use std::cell::RefCell;
use std::io;

use bytes::Bytes;
use restante_federation_proto::{ServerName, Timestamp};
use sha2::{Digest, Sha256};
use zstd::bulk::{Compressor, Decompressor};

use super::seals::Seals;
use crate::{ContentHash, Deposit, Onward};

/// zstd's level. Mail is mostly base64, which any level shortens by a quarter and none by more; the
/// rest is names and keys that repeat. Measured with `examples/compression.rs` (one core, proof,
/// waybill and keys included), level 1:
///
/// | mail | bytes | stored | compress | decompress |
/// |---|---|---|---|---|
/// | 1 encrypted PDU | 2.6 KB | 66 % | 15 µs | 10 µs |
/// | 1 long encrypted PDU | 4.9 KB | 71 % | 17 µs | 12 µs |
/// | 10 encrypted PDUs | 18 KB | 58 % | 36 µs | 20 µs |
/// | 50 encrypted PDUs | 85 KB | 56 % | 127 µs | 58 µs |
/// | 50 PDUs, 100 to-device EDUs | 248 KB | 60 % | 340 µs | 160 µs |
///
/// Level 3 saves less than one percent more and takes 1.3 to 2.3 times as long; the negative
/// levels leave base64 as it is (76 to 92 %). At level 1 the time is a tenth of what checking a
/// deposit's signature takes, and what is not written need not be synced.
const LEVEL: i32 = 1;

/// Bodies below this are stored as they are: JSON this short hardly repeats itself.
const COMPRESS_BYTES_MIN: usize = 256;

/// How `bytes` are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Coding {
    Plain = 0,
    Zstd = 1,
}

impl Coding {
    fn of(number: i64) -> Option<Self> {
        match number {
            0 => Some(Self::Plain),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Content and members, one after the other, as stored.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) coding: Coding,
    pub(super) bytes: Bytes,
}

/// Packs content and members in one frame: they repeat each other's names and keys.
pub(super) fn pack(deposit: &Deposit) -> Body {
    let together = if deposit.members.is_empty() {
        deposit.content.clone()
    } else {
        [&deposit.content[..], &deposit.members[..]].concat().into()
    };
    if together.len() >= COMPRESS_BYTES_MIN
        && let Ok(compressed) = compress(&together)
        && compressed.len() < together.len()
    {
        return Body { coding: Coding::Zstd, bytes: compressed.into() };
    }
    Body { coding: Coding::Plain, bytes: together }
}

thread_local! {
    // Making a context takes about as long as a short body does in it. Nothing of one body is left in it for the next.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = RefCell::new(Compressor::new(LEVEL).ok());
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = RefCell::new(Decompressor::new().ok());
}

fn compress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|context| match context {
        Some(context) => context.compress(bytes),
        None => zstd::bulk::compress(bytes, LEVEL),
    })
}

/// The `length` bytes that `bytes` became of.
fn decompress(bytes: &[u8], length: usize) -> io::Result<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|context| match context {
        Some(context) => context.decompress(bytes, length),
        None => zstd::bulk::decompress(bytes, length),
    })
}

/// The columns of a stored envelope, not yet believed.
#[derive(Debug)]
pub(super) struct Stored<'a> {
    pub(super) origin: &'a [u8],
    pub(super) txn_id: &'a [u8],
    pub(super) content_hash: &'a [u8],
    pub(super) deposited_at: i64,
    /// Not under the checksum: a hold prolongs it.
    pub(super) expires_at: i64,
    pub(super) content_bytes: i64,
    pub(super) members_bytes: i64,
    pub(super) coding: i64,
    /// The number of the key that sealed the body, if it is sealed.
    pub(super) seal: i64,
    pub(super) body: &'a [u8],
    /// Not under the checksum: a refusal changes it.
    pub(super) onward: i64,
}

impl Stored<'_> {
    /// All that is said of the body, each part of a fixed length or with its length.
    pub(super) fn about(&self, recipient: &ServerName) -> Vec<u8> {
        let mut about = Vec::with_capacity(256);
        for text in [recipient.as_str().as_bytes(), self.origin, self.txn_id, self.content_hash] {
            about.extend((text.len() as u64).to_be_bytes());
            about.extend(text);
        }
        for number in [self.deposited_at, self.content_bytes, self.members_bytes, self.coding] {
            about.extend(number.to_be_bytes());
        }
        about
    }

    /// SHA-256 over the columns, the body as it is stored.
    pub(super) fn checksum(&self, recipient: &ServerName) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.about(recipient));
        hash.update(self.body);
        hash.finalize().into()
    }

    /// What was left. `None` if it cannot have been: call this only once the checksum matched,
    /// because only that makes the lengths, which bound the memory taken, believable.
    pub(super) fn unpack(&self, recipient: &ServerName, seals: &Seals) -> Option<Deposit> {
        let content_bytes = usize::try_from(self.content_bytes).ok()?;
        let members_bytes = usize::try_from(self.members_bytes).ok()?;
        let bytes = content_bytes.checked_add(members_bytes)?;
        let body = seals.open(self.seal, self.body, &self.about(recipient))?;
        let together = match Coding::of(self.coding)? {
            Coding::Plain => body.into_owned(),
            Coding::Zstd => decompress(&body, bytes).ok()?,
        };
        if together.len() != bytes {
            return None;
        }
        let mut content = Bytes::from(together);
        let members = content.split_off(content_bytes);
        Some(Deposit {
            recipient: recipient.clone(),
            origin: std::str::from_utf8(self.origin).ok()?.parse().ok()?,
            txn_id: String::from_utf8(self.txn_id.to_vec()).ok()?,
            content_hash: ContentHash(self.content_hash.try_into().ok()?),
            content,
            members,
            deposited_at: Timestamp::from_millis(u64::try_from(self.deposited_at).ok()?),
            expires_at: Timestamp::from_millis(u64::try_from(self.expires_at).unwrap_or(0)),
            onward: Onward::of(self.onward),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(content: impl Into<Bytes>) -> Body {
        let content = content.into();
        pack(&Deposit {
            recipient: "b.example".parse().unwrap(),
            origin: "a.example".parse().unwrap(),
            txn_id: "1".to_owned(),
            content_hash: ContentHash([0; 32]),
            content,
            members: Bytes::new(),
            deposited_at: Timestamp::EPOCH,
            expires_at: Timestamp::EPOCH,
            onward: Onward::No,
        })
    }

    #[test]
    fn what_repeats_itself_is_compressed_unless_it_is_short() {
        let short = packed(vec![b'a'; COMPRESS_BYTES_MIN - 1]);
        assert_eq!((short.coding, short.bytes.len()), (Coding::Plain, COMPRESS_BYTES_MIN - 1));
        let long = packed(vec![b'a'; COMPRESS_BYTES_MIN]);
        assert_eq!(long.coding, Coding::Zstd);
        assert!(long.bytes.len() < COMPRESS_BYTES_MIN);
    }

    #[test]
    fn what_compression_does_not_shorten_is_stored_as_it_is() {
        let noise: Vec<u8> = (0..64_u8).flat_map(|number| Sha256::digest([number])).collect();
        let body = packed(noise.clone());
        assert_eq!((body.coding, body.bytes), (Coding::Plain, Bytes::from(noise)));
    }
}
