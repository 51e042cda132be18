//! The operator's token: a random text in a file that only its owner reads.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use restante_federation::create_private_file;
use sha2::{Digest, Sha256};

/// What the operator's door asks for. `Debug` is not implemented, so that it does not reach a log.
#[derive(Clone)]
pub struct Token(Arc<str>);

/// The token file can't be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the token file {path}")]
pub struct TokenError {
    path: PathBuf,
    source: io::Error,
}

impl Token {
    /// A token of the caller's.
    pub fn of(text: &str) -> Self {
        Self(text.into())
    }

    /// Reads the file; makes it with mode 0600 when there is none.
    pub fn load_or_create(path: &Path) -> Result<Self, TokenError> {
        let failed = |source| TokenError { path: path.to_owned(), source };
        match fs::read_to_string(path) {
            Ok(text) if !text.trim().is_empty() => Ok(Self(text.trim().into())),
            Ok(_) => {
                let empty =
                    io::Error::other("it is empty; delete it, and the next start makes another");
                Err(failed(empty))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let text: String =
                    rand::random::<[u8; 32]>().iter().map(|b| format!("{b:02x}")).collect();
                create_private_file(path, &text).map_err(failed)?;
                Ok(Self(text.into()))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Compares hashes, so that the time taken tells nothing about the token.
    pub fn matches(&self, given: &str) -> bool {
        Sha256::digest(given.as_bytes()) == Sha256::digest(self.0.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_token_is_made_once_and_only_itself_matches() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin-token");
        let made = Token::load_or_create(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(made.matches(&text));
        assert!(Token::load_or_create(&path).unwrap().matches(&text));
        assert!(!made.matches(""));
        assert!(!made.matches(&text[1..]));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
