//! What a notary's `/_matrix/key/v2/query` answers
//! (server-server API, "Querying keys through another server").

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::key_document::malformed;
use crate::{KeyDocument, KeyDocumentError};

/// Most documents that are read from one notary's answer; the rest of it is left out.
pub const NOTARY_DOCUMENTS_MAX: usize = 256;

/// A notary's answer: `{"server_keys":[…]}`.
#[derive(Debug, Clone, Default)]
pub struct NotaryResponse {
    /// The documents that parse and whose self-signatures verify; the rest is left out.
    pub server_keys: Vec<KeyDocument>,
}

impl NotaryResponse {
    /// Reads an answer of `/_matrix/key/v2/query`.
    pub fn parse(body: &[u8]) -> Result<Self, KeyDocumentError> {
        let wire: NotaryWire<'_> = serde_json::from_slice(body).map_err(malformed)?;
        let server_keys = wire
            .server_keys
            .into_iter()
            .take(NOTARY_DOCUMENTS_MAX)
            .filter_map(|raw| KeyDocument::parse(Bytes::copy_from_slice(raw.get().as_bytes())).ok())
            .collect();
        Ok(Self { server_keys })
    }

    /// Writes an answer from documents that are countersigned already.
    pub fn to_json(documents: &[Bytes]) -> Vec<u8> {
        let mut json = br#"{"server_keys":["#.to_vec();
        json.extend_from_slice(&documents.join(&b','));
        json.extend_from_slice(b"]}");
        json
    }
}

#[derive(Deserialize)]
struct NotaryWire<'a> {
    #[serde(borrow)]
    server_keys: Vec<&'a RawValue>,
}
