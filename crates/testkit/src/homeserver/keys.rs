//! Gives a stopped Synapse another signing key.

use restante_federation_proto::{Clock as _, SigningKey, SystemClock};
use serde_json::{Value, json};

use super::{Homeserver, config};

/// What becomes of a homeserver's signing key when it gets another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldKey {
    /// It is retired at once: the key document names it among `old_verify_keys`, and no longer bears its signature.
    Retired,
    /// It stays in the signing key file behind its successor, and both sign the key document.
    KeptBeside,
}

impl Homeserver {
    /// Gives it another signing key, with which it signs from its next start on.
    ///
    /// # Panics
    ///
    /// When it runs.
    pub fn change_signing_key(&mut self, old: OldKey) {
        assert!(!self.process.is_started(), "stop the homeserver before its key is changed");
        let key = SigningKey::generate(&mut rand::rng());
        let before = std::mem::replace(&mut self.key, key);
        match old {
            OldKey::Retired => {
                self.write(config::SIGNING_KEY_FILE, &self.key.to_file_text());
                self.write(config::FILE, &self.config_without(&before).to_string());
            }
            OldKey::KeptBeside => {
                let both = format!("{}{}", self.key.to_file_text(), before.to_file_text());
                self.write(config::SIGNING_KEY_FILE, &both);
            }
        }
    }

    /// Its configuration, with `retired` in `old_signing_keys`.
    fn config_without(&self, retired: &SigningKey) -> Value {
        let text = std::fs::read(self.directory.join(config::FILE));
        let mut config: Value =
            serde_json::from_slice(&text.expect("its configuration was written"))
                .expect("it was written as JSON");
        config["old_signing_keys"] = json!({ retired.id().as_str(): {
            "key": retired.public_key().to_base64(),
            "expired_ts": SystemClock.now(),
        } });
        config
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.join(name), text).expect("the test's folder is writable");
    }
}
