//! ed25519 keys, their ids, and signatures.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, Engine};
use ed25519_dalek::{Signer, Verifier};
use rand::{CryptoRng, RngExt};
use serde::{Deserialize, Serialize};

/// Longest key id that is accepted, in bytes.
const KEY_ID_BYTES_MAX: usize = 255;
const ALGORITHM: &str = "ed25519";

/// A key id such as `ed25519:a_1`: opaque, at most 255 bytes, with the prefix `ed25519:`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(Arc<str>);

/// A text is not the key, key id or signature it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not an ed25519 key id.
    #[error("not an ed25519 key id of at most 255 bytes")]
    KeyId,
    /// Not a public key.
    #[error("not an ed25519 public key")]
    PublicKey,
    /// Not a signature.
    #[error("not an ed25519 signature")]
    Signature,
    /// Not a signing key file.
    #[error("not a signing key file; expected one line: ed25519 VERSION SEED")]
    SigningKeyFile,
}

/// The signature is not the key's over that message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct BadSignature;

impl KeyId {
    /// The id as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        match text.strip_prefix(ALGORITHM).and_then(|rest| rest.strip_prefix(':')) {
            Some(version) if printable && !version.is_empty() && text.len() <= KEY_ID_BYTES_MAX => {
                Ok(Self(text.into()))
            }
            _ => Err(KeyError::KeyId),
        }
    }
}

impl TryFrom<String> for KeyId {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A public key, decompressed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(ed25519_dalek::VerifyingKey);

impl PublicKey {
    /// From the 32 bytes of its encoding; points of small order, for which anybody can sign, are refused.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        match ed25519_dalek::VerifyingKey::from_bytes(bytes) {
            Ok(key) if !key.is_weak() => Ok(Self(key)),
            _ => Err(KeyError::PublicKey),
        }
    }

    /// From standard or URL-safe base64, padded or not.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        decode(text).ok_or(KeyError::PublicKey).and_then(|bytes| Self::from_bytes(&bytes))
    }

    /// The 32 bytes of its encoding.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Unpadded standard base64.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.as_bytes())
    }

    /// Checks a signature over `message`.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), BadSignature> {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        self.0.verify(message, &signature).map_err(|_| BadSignature)
    }
}

/// A signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

impl Signature {
    /// From standard or URL-safe base64, padded or not.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self).ok_or(KeyError::Signature)
    }

    /// Unpadded standard base64 (gomatrixserverlib refuses padding).
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0)
    }
}

/// Letters in the id of a generated key: enough that two keys of one server never share it.
const VERSION_LETTERS: usize = 6;

/// A server's signing key. `Debug` shows the key id alone.
#[derive(Clone)]
pub struct SigningKey {
    id: KeyId,
    key: ed25519_dalek::SigningKey,
}

impl SigningKey {
    /// From a 32-byte seed.
    pub fn from_seed(id: KeyId, seed: &[u8; 32]) -> Self {
        Self { id, key: ed25519_dalek::SigningKey::from_bytes(seed) }
    }

    /// A key drawn from `rng`, with an id that tells it from the server's other keys.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let version: [u8; VERSION_LETTERS] = std::array::from_fn(|_| rng.random_range(b'a'..=b'z'));
        let version: String = version.into_iter().map(char::from).collect();
        let id = KeyId(format!("{ALGORITHM}:a_{version}").into());
        Self { id, key: ed25519_dalek::SigningKey::generate(rng) }
    }

    /// Reads the first key of a signing key file as Synapse writes it: a line `ed25519 VERSION SEED` per key.
    pub fn from_file_text(text: &str) -> Result<Self, KeyError> {
        Self::from_line(key_lines(text).next().unwrap_or_default())
    }

    /// Reads the keys behind the first: those that a homeserver lists and signs its key document with as well, because
    /// they are to be replaced by the first, or to follow it.
    pub fn others_from_file_text(text: &str) -> Result<Vec<Self>, KeyError> {
        key_lines(text).skip(1).map(Self::from_line).collect()
    }

    fn from_line(line: &str) -> Result<Self, KeyError> {
        let mut words = line.split_whitespace();
        let (Some(ALGORITHM), Some(version), Some(seed), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(KeyError::SigningKeyFile);
        };
        let id = format!("{ALGORITHM}:{version}").parse().map_err(|_| KeyError::SigningKeyFile)?;
        let seed = decode(seed).ok_or(KeyError::SigningKeyFile)?;
        Ok(Self::from_seed(id, &seed))
    }

    /// The one-line signing key file of this key.
    pub fn to_file_text(&self) -> String {
        let version = &self.id.as_str()[ALGORITHM.len() + 1..];
        format!("{ALGORITHM} {version} {}\n", STANDARD.encode(self.key.as_bytes()))
    }

    /// Its id.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// Its public half.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.key.verifying_key())
    }

    /// Signs `message`.
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.key.sign(message).to_bytes())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

fn key_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim().is_empty())
}

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_encode_padding(false)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Exactly `N` bytes from standard or URL-safe base64, padded or not.
fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let engine = if text.contains(['-', '_']) { URL_SAFE } else { STANDARD };
    let mut bytes = [0; N];
    let length = engine.decode_slice(text, &mut bytes).ok()?;
    (length == N).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn key() -> SigningKey {
        SigningKey::from_seed("ed25519:a_1".parse().unwrap(), &[1; 32])
    }

    #[test]
    fn key_ids_are_opaque_but_bounded() {
        for id in ["ed25519:a", "ed25519:auto", "ed25519:a:b/c\"", &format!("ed25519:{:0247}", 0)] {
            assert_eq!(id.parse::<KeyId>().map(|id| id.to_string()), Ok(id.to_owned()));
        }
        let long = format!("ed25519:{:0248}", 0);
        for id in
            ["", "ed25519", "ed25519:", "Ed25519:a", "rsa:a", "ed25519:a b", "ed25519:é", &long]
        {
            assert_eq!(id.parse::<KeyId>(), Err(KeyError::KeyId), "{id}");
        }
    }

    #[test]
    fn base64_is_read_in_every_dialect_and_written_in_one() {
        let signature = Signature([0xfb; 64]);
        let text = signature.to_base64();
        assert!(text.starts_with("+/v7") && !text.ends_with('='));
        let url_safe = text.replace('+', "-").replace('/', "_");
        for dialect in [&text, &format!("{text}=="), &url_safe, &format!("{url_safe}==")] {
            assert_eq!(Signature::from_base64(dialect), Ok(signature), "{dialect}");
        }
        let mixed = text.replace('+', "-");
        for broken in ["", "A", "AAAA", &text[1..], &format!("{text}AA"), &mixed, " "] {
            assert_eq!(Signature::from_base64(broken), Err(KeyError::Signature), "{broken}");
        }
    }

    #[test]
    fn a_signature_verifies_for_its_key_and_message_alone() {
        let signature = key().sign(b"message");
        assert_eq!(key().public_key().verify(b"message", &signature), Ok(()));
        assert_eq!(key().public_key().verify(b"other", &signature), Err(BadSignature));
        let other = SigningKey::from_seed(key().id().clone(), &[2; 32]).public_key();
        assert_eq!(other.verify(b"message", &signature), Err(BadSignature));
    }

    #[test]
    fn keys_for_which_anybody_can_sign_are_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(PublicKey::from_bytes(&identity), Err(KeyError::PublicKey));
        assert_eq!(PublicKey::from_bytes(&[0; 32]), Err(KeyError::PublicKey));
    }

    #[test]
    fn a_signing_key_file_is_read_as_it_is_written() {
        let text = key().to_file_text();
        assert_eq!(text, "ed25519 a_1 AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE\n");
        for text in [&text, &format!("\n{text}ed25519 second AAAA\n"), &text.replace('\n', "\r\n")]
        {
            let read = SigningKey::from_file_text(text).unwrap();
            assert_eq!((read.id(), read.public_key()), (key().id(), key().public_key()));
        }
    }

    #[test]
    fn the_keys_behind_the_first_are_read_as_well() {
        let first = key().to_file_text();
        let second = SigningKey::from_seed("ed25519:a_2".parse().unwrap(), &[2; 32]);
        let others = |text: &str| SigningKey::others_from_file_text(text);
        let text = format!("{first}\n{}", second.to_file_text());
        let read: Vec<_> = others(&text).unwrap().iter().map(SigningKey::public_key).collect();
        assert_eq!(read, [second.public_key()]);
        assert!(others(&first).unwrap().is_empty());
        assert_eq!(others(&format!("{first}ed25519")).err(), Some(KeyError::SigningKeyFile));
    }

    #[test]
    fn what_is_no_signing_key_file_is_refused() {
        for text in ["", "\n", "ed25519 a_1", "ed25519 a_1 AAAA", "rsa a_1 AAAA", "a b c d"] {
            let refusal = SigningKey::from_file_text(text).err();
            assert_eq!(refusal, Some(KeyError::SigningKeyFile), "{text}");
        }
    }

    #[test]
    fn generated_keys_differ_and_survive_their_file() {
        let mut rng = StdRng::seed_from_u64(1);
        let (one, two) = (SigningKey::generate(&mut rng), SigningKey::generate(&mut rng));
        assert_ne!(one.id(), two.id());
        assert_ne!(one.public_key(), two.public_key());
        let read = SigningKey::from_file_text(&one.to_file_text()).unwrap();
        assert_eq!((read.id(), read.public_key()), (one.id(), one.public_key()));
    }

    #[test]
    fn debug_output_does_not_show_the_seed() {
        assert_eq!(format!("{:?}", key()), "SigningKey { id: KeyId(\"ed25519:a_1\"), .. }");
    }
}
