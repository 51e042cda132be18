//! Seals one body with a key that is derived for it alone.
//!
//! A nonce of 96 random bits repeats sooner or later under one key. So each body has a random salt of 256 bits instead, from which
//! and from the operator's key its own key is derived (HKDF with SHA-256); that key is used once, with a nonce of zeros.

use std::fmt;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::{hkdf, hmac};

const KEY_BYTES: usize = 32;
const SALT_BYTES: usize = 32;
const PROOF_BYTES: usize = 16;

/// Bytes that sealing adds: the salt before, the tag behind.
const ADDED_BYTES: usize = SALT_BYTES + 16;

/// Keeps keys of bodies apart from keys of anything else.
const PURPOSE: &[&[u8]] = &[b"restante: a body at rest"];

/// One of the operator's keys.
#[derive(Clone)]
pub(crate) struct SealingKey([u8; KEY_BYTES]);

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(…)")
    }
}

impl SealingKey {
    pub(crate) fn new(key: [u8; KEY_BYTES]) -> Self {
        Self(key)
    }

    /// What tells this key from another without giving it away.
    pub(crate) fn proof(&self) -> [u8; PROOF_BYTES] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let tag = hmac::sign(&key, b"restante: which key this is");
        *tag.as_ref().first_chunk().expect("a SHA-256 has more bytes")
    }

    /// `body` sealed; it opens only with the same `about`.
    pub(crate) fn seal(&self, body: &[u8], about: &[u8], salt: [u8; SALT_BYTES]) -> Vec<u8> {
        let key = self.body_key(&salt);
        let mut sealed = Vec::with_capacity(body.len() + ADDED_BYTES);
        sealed.extend(salt);
        sealed.extend(body);
        let tag = key
            .seal_in_place_separate_tag(nonce(), Aad::from(about), &mut sealed[SALT_BYTES..])
            .expect("a body is far below the 256 GiB that this cipher takes");
        sealed.extend(tag.as_ref());
        sealed
    }

    /// The body, if this key sealed it with `about`.
    pub(crate) fn open(&self, sealed: &[u8], about: &[u8]) -> Option<Vec<u8>> {
        let (salt, sealed) = sealed.split_first_chunk::<SALT_BYTES>()?;
        let mut body = sealed.to_vec();
        let length =
            self.body_key(salt).open_in_place(nonce(), Aad::from(about), &mut body).ok()?.len();
        body.truncate(length);
        Some(body)
    }

    fn body_key(&self, salt: &[u8; SALT_BYTES]) -> LessSafeKey {
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&self.0);
        let key = secret.expand(PURPOSE, &CHACHA20_POLY1305);
        LessSafeKey::new(UnboundKey::from(key.expect("a cipher's key is shorter than 255 hashes")))
    }
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: SealingKey = SealingKey([1; KEY_BYTES]);

    #[test]
    fn only_the_same_key_opens_and_only_with_the_same_words() {
        let sealed = KEY.seal(b"a letter", b"for b.example", [7; SALT_BYTES]);

        assert_eq!(sealed.len(), 8 + ADDED_BYTES);
        assert_eq!(KEY.open(&sealed, b"for b.example").as_deref(), Some(&b"a letter"[..]));
        assert_eq!(KEY.open(&sealed, b"for c.example"), None);
        let other = SealingKey([2; KEY_BYTES]);
        assert_eq!(other.open(&sealed, b"for b.example"), None);
        assert_ne!(KEY.proof(), other.proof());
    }

    #[test]
    fn a_changed_or_shortened_body_does_not_open() {
        let sealed = KEY.seal(b"a letter", b"", [7; SALT_BYTES]);

        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(KEY.open(&changed, b""), None, "byte {at}");
            assert_eq!(KEY.open(&sealed[..at], b""), None, "cut at {at}");
        }
    }

    #[test]
    fn the_same_body_sealed_twice_looks_different() {
        let once = KEY.seal(b"a letter", b"", [7; SALT_BYTES]);
        let twice = KEY.seal(b"a letter", b"", [8; SALT_BYTES]);

        assert_ne!(once[SALT_BYTES..], twice[SALT_BYTES..]);
    }
}
