//! Keys of other servers, as a homeserver keeps them: the newest document that each server gave of itself.

use std::collections::BTreeMap;

use restante_federation_proto::{KeyDocument, KeyId, PublicKey, ServerName, Timestamp};

#[derive(Default)]
pub(crate) struct KnownKeys {
    documents: BTreeMap<ServerName, KeyDocument>,
}

impl KnownKeys {
    /// The key, if its document was valid at `at`. For requests that is now, for events when they were written.
    pub(crate) fn key(
        &self,
        server: &ServerName,
        key_id: &KeyId,
        at: Timestamp,
    ) -> Option<PublicKey> {
        self.documents.get(server)?.key_valid_at(key_id, at).cloned()
    }

    /// Keeps what a server said of itself, unless what is known is valid longer.
    pub(crate) fn learn(&mut self, document: KeyDocument) {
        let known = self.documents.get(document.server_name());
        if known.is_none_or(|known| known.valid_until() < document.valid_until()) {
            self.documents.insert(document.server_name().clone(), document);
        }
    }

    pub(crate) fn document(&self, server: &ServerName) -> Option<&KeyDocument> {
        self.documents.get(server)
    }
}
