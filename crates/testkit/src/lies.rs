//! What a relay that lies does to the mail that it hands over.

use restante_relay_api::endpoints::COLLECT;
use restante_relay_api::{Content, hex};
use serde_json::Value;

use crate::meddler::Meddler;

impl Meddler {
    /// Withholds the envelopes whose transaction `is_meant`.
    pub fn drop_mail(&self, is_meant: impl Fn(&Value) -> bool + Send + Sync + 'static) {
        self.alter(COLLECT, move |answer| {
            if let Some(envelopes) = answer["envelopes"].as_array_mut() {
                envelopes.retain(|envelope| !is_meant(&envelope["transaction"]));
            }
        });
    }

    /// Lets `forge` change every transaction, and makes the checksum fit.
    pub fn forge_mail(&self, forge: impl Fn(&mut Value) + Send + Sync + 'static) {
        self.alter(COLLECT, move |answer| {
            for envelope in answer["envelopes"].as_array_mut().into_iter().flatten() {
                forge(&mut envelope["transaction"]);
                let content = Content::parse(envelope["transaction"].to_string().into());
                let content = content.expect("a forgery is still a transaction");
                envelope["sha256"] = hex(content.sha256()).into();
            }
        });
    }
}
