//! Relay records, which web sites and relays give: bounds, and that only the server's own signature makes one count.

use restante_federation_proto::Timestamp;
use restante_relay_api::limits::{RECORD_BYTES_MAX, RECORD_RELAYS_MAX};
use restante_relay_api::{RelayRecord, RelayRecordError, VERSION_AHEAD_MAX};

use crate::reference;
use crate::signer::{Signer, other_key, server, signer};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

pub(crate) fn relay_record(json: &[u8]) {
    let Ok(record) = RelayRecord::parse(json, NOW) else { return };
    assert!(json.len() <= RECORD_BYTES_MAX && record.relays.len() <= RECORD_RELAYS_MAX);
    assert!(record.version <= NOW.after(VERSION_AHEAD_MAX));
    verifies_only_what_was_signed(json, &record);
    assert_signed_anew(&record);
}

fn verifies_only_what_was_signed(json: &[u8], record: &RelayRecord) {
    let Signer { key, .. } = signer();
    let (of, public) = (&record.server_name, key.public_key());
    let verified = RelayRecord::verify(json, of, (key.id(), &public), NOW);
    let message = reference::signature::message(json);
    let signature = reference::signature::carried(json, of, key.id());
    let expected = message.zip(signature).is_some_and(|(message, signature)| {
        reference::signature::verifies(&public, message.as_bytes(), &signature)
    });
    assert_eq!(verified.is_ok(), expected);
    if expected {
        assert!(RelayRecord::key_ids(json, of).contains(key.id()));
    }
}

fn assert_signed_anew(record: &RelayRecord) {
    let Signer { key, .. } = signer();
    let signed = record.signed(&key);
    // Text of control characters takes six bytes each when it is written again.
    if signed.len() > RECORD_BYTES_MAX {
        return;
    }
    assert_eq!(RelayRecord::parse(&signed, NOW).as_ref(), Ok(record));
    let verified = |of, public| RelayRecord::verify(&signed, of, (key.id(), public), NOW);
    let (of, public, other_key) = (&record.server_name, key.public_key(), other_key());
    assert_eq!(verified(of, &public).as_ref(), Ok(record));
    assert_eq!(verified(of, &other_key), Err(RelayRecordError::Signature));
    let other = server("no.such.example");
    if *of != other {
        assert_eq!(verified(&other, &public), Err(RelayRecordError::OtherServer));
    }
}
