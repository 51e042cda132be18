//! The delivery receipt: the recipient's node confirms to the origin's what became of its mail.
//!
//! It is an EDU in a transaction that the recipient's node makes and signs with its homeserver's key. So it travels like
//! any mail: directly, or through the relays of the server that it is for, which need not know it; and that server's
//! homeserver, if no node stands before it, ignores it.

use std::collections::BTreeMap;

use restante_federation_proto::{ServerName, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The EDU's type.
pub const DELIVERY_RECEIPT_EDU: &str = "org.restante.delivery_receipt";

/// Transactions and ranges of numbers that one transaction speaks of: as many as a relay hands over at once.
pub const DELIVERIES_MAX: usize = 500;

/// Bytes of a transaction that holds receipts: [`DELIVERIES_MAX`] deliveries with 50 events each.
pub const RECEIPTS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of one PDU's error.
pub const PDU_ERROR_BYTES_MAX: usize = 300;

/// The EDU's content. Who confirms is the origin of the transaction that it is in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DeliveryReceipt {
    /// What was delivered or parked.
    #[serde(default)]
    pub deliveries: Vec<ConfirmedDelivery>,
    /// Numbers of the origin's streams that no relay had, though later ones came and every own relay was asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<MissingNumbers>,
}

/// What became of one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmedDelivery {
    /// Its id.
    pub txn_id: String,
    /// SHA-256 of its canonical content, lower-case hex.
    pub content_sha256: String,
    /// How it ended.
    pub outcome: ConfirmedOutcome,
    /// Who brought it first; left out if its origin did itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<ServerName>,
    /// When it ended, by the recipient's clock.
    pub at: Timestamp,
    /// Its PDUs by event id, as in the answer to `/send`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pdus: BTreeMap<String, PduResult>,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfirmedOutcome {
    /// The recipient's homeserver took it.
    Delivered,
    /// All or some of it was set aside for the recipient's operator: its node keeps it, and sending it again changes nothing.
    Parked,
    /// It has not ended: its recipient's node has it, and some of its events wait there for what they follow. Sending it again changes
    /// nothing, and another receipt says how it ended.
    Waiting,
}

/// What became of a PDU.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PduResult {
    /// Why it was not taken; left out if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether it waits at its recipient's node, and what becomes of it is told later.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waits: bool,
}

/// Numbers of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingNumbers {
    /// The stream, as waybills name it.
    pub stream: String,
    /// The first that is missing.
    pub from: u64,
    /// The last that is missing.
    pub through: u64,
}

#[derive(Serialize)]
struct Edu<'a> {
    edu_type: &'a str,
    content: &'a DeliveryReceipt,
}

#[derive(Serialize)]
struct Transaction<'a> {
    origin: &'a ServerName,
    origin_server_ts: Timestamp,
    pdus: [(); 0],
    edus: [Edu<'a>; 1],
}

#[derive(Deserialize)]
struct TransactionShape<'a> {
    #[serde(borrow, default)]
    pdus: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default)]
    edus: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct EduShape<'a> {
    #[serde(borrow)]
    edu_type: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    content: &'a RawValue,
}

impl DeliveryReceipt {
    /// The content of the transaction that carries it, not yet canonical.
    pub fn to_transaction(&self, from: &ServerName, at: Timestamp) -> Vec<u8> {
        let edus = [Edu { edu_type: DELIVERY_RECEIPT_EDU, content: self }];
        let transaction = Transaction { origin: from, origin_server_ts: at, pdus: [], edus };
        serde_json::to_vec(&transaction).expect("texts, numbers and lists are JSON")
    }

    /// The receipts in a transaction's content that holds nothing else: so its recipient's node keeps it, and hands nothing on.
    /// `None` for all other mail, and for what is longer than [`RECEIPTS_BYTES_MAX`]. What goes beyond [`DELIVERIES_MAX`] in
    /// all, or does not read, says nothing.
    pub fn in_transaction(content: &[u8]) -> Option<Vec<Self>> {
        if content.len() > RECEIPTS_BYTES_MAX {
            return None;
        }
        let shape: TransactionShape<'_> = serde_json::from_slice(content).ok()?;
        let edus = shape.edus.unwrap_or_default();
        if edus.is_empty() || shape.pdus.is_some_and(|pdus| !pdus.is_empty()) {
            return None;
        }
        let (mut receipts, mut room) = (Vec::new(), DELIVERIES_MAX);
        for edu in edus {
            let edu: EduShape<'_> = serde_json::from_str(edu.get()).ok()?;
            if edu.edu_type != DELIVERY_RECEIPT_EDU {
                return None;
            }
            if room > 0
                && let Ok(receipt) = serde_json::from_str::<Self>(edu.content.get())
            {
                let left = room.checked_sub(receipt.deliveries.len() + receipt.missing.len());
                room = left.unwrap_or(0);
                receipts.extend(left.map(|_| receipt));
            }
        }
        Some(receipts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt() -> DeliveryReceipt {
        let pdus = [
            ("$a".to_owned(), PduResult::default()),
            ("$b".to_owned(), PduResult { error: Some("denied".to_owned()), waits: false }),
            ("$c".to_owned(), PduResult { error: None, waits: true }),
        ];
        DeliveryReceipt {
            deliveries: vec![ConfirmedDelivery {
                txn_id: "17".to_owned(),
                content_sha256: "ab".repeat(32),
                outcome: ConfirmedOutcome::Parked,
                relay: Some("r.test".parse().unwrap()),
                at: Timestamp::from_millis(3),
                pdus: pdus.into_iter().collect(),
            }],
            missing: vec![MissingNumbers { stream: "s".to_owned(), from: 4, through: 6 }],
        }
    }

    #[test]
    fn a_receipt_comes_back_from_its_transaction() {
        let from = "b.test".parse().unwrap();
        let content = receipt().to_transaction(&from, Timestamp::from_millis(5));
        assert_eq!(DeliveryReceipt::in_transaction(&content), Some(vec![receipt()]));
        let text = String::from_utf8(content).unwrap();
        assert!(text.starts_with(r#"{"origin":"b.test","origin_server_ts":5,"pdus":[],"edus":["#));
        assert!(text.contains(r#""pdus":{"$a":{},"$b":{"error":"denied"},"$c":{"waits":true}}"#));
    }

    #[test]
    fn mail_with_anything_else_in_it_is_the_homeservers() {
        let typing = r#"{"edu_type":"m.typing","content":{}}"#;
        let ours = r#"{"edu_type":"org.restante.delivery_receipt","content":{}}"#;
        for content in [
            format!(r#"{{"edus":[{ours},{typing}]}}"#),
            format!(r#"{{"edus":[{ours}],"pdus":[{{}}]}}"#),
            r#"{"edus":[]}"#.to_owned(),
            r#"{"pdus":[],"edus":null}"#.to_owned(),
            "[]".to_owned(),
        ] {
            assert_eq!(DeliveryReceipt::in_transaction(content.as_bytes()), None, "{content}");
        }
    }

    #[test]
    fn a_transaction_says_no_more_in_many_receipts_than_in_one() {
        let range = r#"{"stream":"s","from":1,"through":9}"#;
        let ranges = |count: usize| vec![range; count].join(",");
        let edu = |count| {
            format!(
                r#"{{"edu_type":"org.restante.delivery_receipt","content":{{"missing":[{}]}}}}"#,
                ranges(count)
            )
        };
        let said = |counts: &[usize]| {
            let edus: Vec<_> = counts.iter().map(|count| edu(*count)).collect();
            let content = format!(r#"{{"edus":[{}]}}"#, edus.join(","));
            let receipts = DeliveryReceipt::in_transaction(content.as_bytes()).unwrap();
            receipts.iter().map(|receipt| receipt.missing.len()).sum::<usize>()
        };
        assert_eq!(said(&[200, 300]), DELIVERIES_MAX);
        assert_eq!(said(&[500, 500, 1]), DELIVERIES_MAX);
        assert_eq!(said(&[501]), 0);
    }

    #[test]
    fn what_does_not_read_says_nothing_and_is_kept_from_the_homeserver_all_the_same() {
        let content = br#"{"edus":[{"edu_type":"org.restante.delivery_receipt","content":{"deliveries":7}}]}"#;
        assert_eq!(DeliveryReceipt::in_transaction(content), Some(vec![]));
    }
}
