//! The homeserver's database vouches for keys: documents that it holds already, signed by itself as a notary.

use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use restante_federation::{Patience, Voucher};
use restante_federation_proto::{KeyDocument, NotaryResponse, ServerName, escape_path_segment};
use restante_relay_api::endpoints::KEY_QUERY;

use super::Homeserver;

/// Short: a homeserver that looks the keys up instead of answering from its database asks this very node for
/// them, and must not wait for its own question.
const VOUCHER_PATIENCE: Patience =
    Patience { connect: Duration::from_secs(2), answer: Duration::from_secs(4) };

#[async_trait]
impl Voucher for Homeserver {
    async fn documents(&self, server: &ServerName) -> Vec<KeyDocument> {
        // Without a key id, Synapse answers from its database and looks nothing up.
        let target = format!("{KEY_QUERY}/{}", escape_path_segment(server.as_str()));
        let Ok((StatusCode::OK, body)) = self.get(&target, VOUCHER_PATIENCE).await else {
            return Vec::new();
        };
        let documents = NotaryResponse::parse(&body).unwrap_or_default().server_keys;
        documents.into_iter().filter(|document| self.vouches_for(document, server)).collect()
    }
}

impl Homeserver {
    fn vouches_for(&self, document: &KeyDocument, server: &ServerName) -> bool {
        let identity = &self.shared.identity;
        let key = &identity.key;
        document.server_name() == server
            && document.is_signed_by(&identity.server_name, key.id(), &key.public_key())
    }
}
