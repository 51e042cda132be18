//! Receipts in the answers of relays: found whole, bounded, and good for one relay and one transaction only.

use restante_relay_api::limits::RECEIPT_BYTES_MAX;
use restante_relay_api::{Receipt, ReceiptError, Receipted, parse_hex};

use crate::signer::{Signer, other_key, server, signer};

pub(crate) fn receipt(body: &[u8]) {
    let Some(json) = Receipt::in_answer(body) else { return };
    let Ok(receipt) = serde_json::from_slice::<Receipt>(&json) else { return };
    let Some(content_sha256) = parse_hex(&receipt.content_sha256) else { return };
    let of = Receipted {
        origin: &receipt.origin,
        destination: &receipt.destination,
        txn_id: &receipt.txn_id,
        content_sha256: &content_sha256,
    };
    let Signer { key, .. } = signer();
    let public = key.public_key();
    // Nobody here has signed what came.
    assert!(Receipt::verify(&json, &receipt.relay, &of, (key.id(), &other_key())).is_err());

    let signed = receipt.signed(&key);
    assert_eq!(Receipt::in_answer(&Receipt::to_answer(&signed)).as_deref(), Some(&signed[..]));
    let verified = |relay, of, public| Receipt::verify(&signed, relay, of, (key.id(), public));
    if signed.len() > RECEIPT_BYTES_MAX {
        assert_eq!(verified(&receipt.relay, &of, &public), Err(ReceiptError::Malformed));
        return;
    }
    assert_eq!(verified(&receipt.relay, &of, &public).as_ref(), Ok(&receipt));
    let other_key = other_key();
    assert_eq!(verified(&receipt.relay, &of, &other_key), Err(ReceiptError::Signature));
    let (elsewhere, longer) = (server("no.such.example"), format!("{}1", receipt.txn_id));
    let other = Receipted { txn_id: &longer, ..of };
    assert_eq!(verified(&receipt.relay, &other, &public), Err(ReceiptError::OtherTransaction));
    if receipt.relay != elsewhere {
        assert_eq!(verified(&elsewhere, &of, &public), Err(ReceiptError::OtherTransaction));
    }
}
