//! The relay's own signing key: its file, and the key document that others fetch.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use restante_federation::{Identity, create_private_file};
use restante_federation_proto::{KeyDocument, KeyId, SigningKey, Timestamp, mint};

/// How long the document is valid: a week, the most that Dendrite accepts.
const VALID_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// A document with less left than this is made anew.
const RENEW_BELOW: Duration = Duration::from_secs(6 * 24 * 3600);

/// Why there is no signing key.
#[derive(Debug, thiserror::Error)]
pub enum OwnKeyError {
    /// The file can't be read or written.
    #[error("cannot use the signing key file {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not a signing key.
    #[error("{path} is not a signing key; expected one line: ed25519 VERSION SEED")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// Reads the signing key; makes it, readable by its owner alone, when there is none.
pub(crate) fn load_or_create(path: &Path) -> Result<SigningKey, OwnKeyError> {
    let failed = |source| OwnKeyError::Io { path: path.to_owned(), source };
    match fs::read_to_string(path) {
        Ok(text) => SigningKey::from_file_text(&text)
            .map_err(|_| OwnKeyError::Malformed { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = fresh_key();
            create_private_file(path, &key.to_file_text()).map_err(failed)?;
            Ok(key)
        }
        Err(error) => Err(failed(error)),
    }
}

fn fresh_key() -> SigningKey {
    let seed: [u8; 32] = rand::random();
    let id: KeyId = "ed25519:restante".parse().expect("a constant that is a key id");
    SigningKey::from_seed(id, &seed)
}

/// The relay's key document, renewed as time goes by.
pub(crate) struct OwnKey {
    identity: Identity,
    newest: Mutex<Option<KeyDocument>>,
}

impl OwnKey {
    pub(crate) fn new(identity: Identity) -> Self {
        Self { identity, newest: Mutex::default() }
    }

    /// The document to serve at `now`.
    pub(crate) fn document(&self, now: Timestamp) -> Bytes {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let document = newest
            .take()
            .filter(|document| document.valid_until().since(now) > RENEW_BELOW)
            .unwrap_or_else(|| {
                mint(&self.identity.server_name, &self.identity.key, None, now.after(VALID_FOR))
            });
        newest.insert(document).raw().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_readable_by_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signing.key");
        let made = load_or_create(&path).unwrap();
        let found = load_or_create(&path).unwrap();
        assert_eq!(made.public_key(), found.public_key());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_is_no_key_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signing.key");
        fs::write(&path, "not a key\n").unwrap();
        let error = load_or_create(&path).unwrap_err();
        assert!(error.to_string().contains("is not a signing key"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "not a key\n");
    }
}
