//! Signing key files: what is read is written in one form, and read again as the same key.

use restante_federation_proto::{PublicKey, Signature, SigningKey};

use crate::text;

pub(crate) fn signing_key_file(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    assert_dialects(text);
    let Ok(key) = SigningKey::from_file_text(text) else { return };
    let written = key.to_file_text();
    let again = SigningKey::from_file_text(&written).expect("its own file is a key file");
    assert_eq!((again.id(), again.public_key()), (key.id(), key.public_key()));
    assert_eq!(again.to_file_text(), written);
    assert!(key.public_key().verify(b"message", &again.sign(b"message")).is_ok());
}

/// Keys and signatures by themselves: base64 of whatever dialect is written in one.
fn assert_dialects(text: &str) {
    for word in text.split_whitespace() {
        if let Ok(key) = PublicKey::from_base64(word) {
            assert_eq!(PublicKey::from_base64(&key.to_base64()), Ok(key.clone()));
            assert_eq!(PublicKey::from_bytes(key.as_bytes()), Ok(key));
        }
        if let Ok(signature) = Signature::from_base64(word) {
            assert_eq!(Signature::from_base64(&signature.to_base64()), Ok(signature));
        }
    }
}
