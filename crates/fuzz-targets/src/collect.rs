//! What goes between a node and a relay that is asked for mail.

use restante_relay_api::{CollectRequest, CollectResponse, RelayTxnRequest, RelayTxnResponse};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::reference;

pub(crate) fn request(json: &[u8]) {
    let Ok(request) = serde_json::from_slice::<CollectRequest>(json) else { return };
    let written = request.to_canonical_json();
    assert_eq!(reference::canonical(&written).as_deref().map(str::as_bytes), Some(&written[..]));
    assert_eq!(serde_json::from_slice::<CollectRequest>(&written).ok(), Some(request));
}

pub(crate) fn response(json: &[u8]) {
    let Ok(response) = CollectResponse::parse(json) else { return };
    let written = response.to_json();
    let again = CollectResponse::parse(&written).expect("what is written is read");
    assert_eq!(again, response);
    for envelope in &response.envelopes {
        let extras = reference::members(&envelope.extras).unwrap_or_default();
        assert!(extras.iter().all(|(name, _)| name.starts_with("org.restante.")));
        assert_eq!(extras.is_empty(), envelope.extras.is_empty());
        assert_dendrites_form(envelope.id, &envelope.content, &envelope.extras);
    }
}

/// The same envelope, in the answer that Dendrite's nodes read.
fn assert_dendrites_form(entry_id: u64, content: &bytes::Bytes, extras: &bytes::Bytes) {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        transaction: &'a RawValue,
        entry_id: u64,
        entries_queued: bool,
    }
    let envelope =
        RelayTxnResponse::Envelope { entry_id, content: content.clone(), extras: extras.clone() };
    let json = envelope.to_json();
    let answer: Answer<'_> = serde_json::from_slice(&json).expect("an answer is JSON");
    assert_eq!(answer.transaction.get().as_bytes(), content);
    assert_eq!((answer.entry_id, answer.entries_queued), (entry_id, true));
}

pub(crate) fn relay_txn(json: &[u8]) {
    let Ok(request) = serde_json::from_slice::<RelayTxnRequest>(json) else { return };
    let written = format!(r#"{{"entry_id":{}}}"#, request.entry_id);
    assert_eq!(serde_json::from_str::<RelayTxnRequest>(&written).ok(), Some(request));
}
