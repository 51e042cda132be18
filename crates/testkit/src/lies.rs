//! What a relay that lies does to the mail that it hands over.

use restante_relay_api::endpoints::{COLLECT, LEFT, SEND_RELAY};
use restante_relay_api::{Content, LeftRequest, hex};
use serde_json::{Value, json};

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

    /// Says of each deposit that it is taken, and keeps none.
    pub fn keep_nothing(&self) {
        self.answer(SEND_RELAY, |_| json!({}));
        self.answer(LEFT, |body| {
            let asked = serde_json::from_slice::<LeftRequest>(body).map(|request| request.ask);
            json!({ "states": vec!["unknown"; asked.unwrap_or_default().len()] })
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
