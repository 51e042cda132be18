//! The server that signs in these properties, and one that never did.

use restante_federation_proto::{PublicKey, ServerName, SigningKey};

/// Who signs.
pub(crate) struct Signer {
    pub(crate) name: ServerName,
    pub(crate) key: SigningKey,
}

/// The signer; the corpus holds documents that it signed.
pub(crate) fn signer() -> Signer {
    Signer { name: server("a.example"), key: key(1) }
}

/// A key that signed nothing in the corpus.
pub(crate) fn other_key() -> PublicKey {
    key(2).public_key()
}

/// A server name that is known to be one.
pub(crate) fn server(name: &'static str) -> ServerName {
    name.parse().expect("the callers' names are valid")
}

fn key(seed: u8) -> SigningKey {
    let id = "ed25519:k".parse().expect("a key id in due form");
    SigningKey::from_seed(id, &[seed; 32])
}
