//! Limits of the wire, each with its unit and the reason for the number.

use std::time::Duration;

/// PDUs in one transaction (server-server API, `PUT /send`).
pub const PDUS_MAX: usize = 50;

/// EDUs in one transaction (server-server API, `PUT /send`).
pub const EDUS_MAX: usize = 100;

/// Bytes of a deposit's body: 50 PDUs of 64 KiB and 100 EDUs of the same size fit twice over.
pub const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of a `collect` or `relay_txn` request: 1,000 acknowledgements fit.
pub const COLLECT_REQUEST_BYTES_MAX: usize = 256 * 1024;

/// Envelopes in one answer to `collect`.
pub const COLLECT_ENVELOPES_MAX: usize = 500;

/// Bytes of envelopes in one answer to `collect`; one larger envelope comes alone.
pub const COLLECT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Acknowledgements in one `collect`.
pub const ACKNOWLEDGEMENTS_MAX: usize = 1000;

/// Mail from elsewhere that one `collect` names: as many as a relay hands over at once. With names of the usual lengths, and
/// every acknowledgement beside it, they fit into the request.
pub const HAVE_MAX: usize = 500;

/// Longest wait of a `collect`: below the 60 s after which common proxies cut an idle request.
pub const COLLECT_WAIT_MAX: Duration = Duration::from_secs(50);

/// How far `signed_at` may lie from the relay's clock, either way; bounds replays of a collect.
pub const SIGNED_AT_TOLERANCE: Duration = Duration::from_secs(60);

/// How long mail is kept, and how old its signed time may be: longer than the week that a homeserver backs off.
pub const TIME_TO_LIVE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How far ahead of the clock a transaction's signed time may lie.
pub const AHEAD_MAX: Duration = Duration::from_secs(10 * 60);

/// How much longer than the mail itself its key document stays valid and a node remembers what it has seen.
pub const MEMORY_BEYOND_TIME_TO_LIVE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Bytes of a transaction id in the path; Synapse's are 13 digits, Dendrite's 15.
pub const TXN_ID_BYTES_MAX: usize = 255;

/// Bytes of one PDU (room versions, "size limits"), and as much again for what servers add beside what is signed.
pub const PDU_BYTES_MAX: usize = 128 * 1024;

/// Bytes of a signed waybill: three names of 255 bytes, a stream, hashes and two signatures fit many times over.
pub const WAYBILL_BYTES_MAX: usize = 16 * 1024;

/// Events in one capsule: a day of a busy room. Synapse was seen to take gaps of 300 in one go.
pub const CAPSULE_PDUS_MAX: usize = 1000;

/// Key documents in one capsule: one for each server that wrote something; few write in one gap.
pub const CAPSULE_KEYS_MAX: usize = 256;

/// Bytes of one capsule: 1,000 events of the 1 to 2 KiB that they usually have, with room to spare.
pub const CAPSULE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of the `org.restante.*` members without the capsule: a key document may take 64 KiB.
pub const EXTRAS_BESIDE_CAPSULE_BYTES_MAX: usize = 128 * 1024;

/// Bytes of the `org.restante.*` members together.
pub const EXTRAS_BYTES_MAX: usize = EXTRAS_BESIDE_CAPSULE_BYTES_MAX + CAPSULE_BYTES_MAX;

/// Bytes of a relay record: 16 relays with URLs and two signatures fit several times.
pub const RECORD_BYTES_MAX: usize = 16 * 1024;

/// Relays in one record: each is asked for every transaction, and three or four outlast any outage.
pub const RECORD_RELAYS_MAX: usize = 16;

/// Patterns in a mailbox's lists of senders, which are looked through for each deposit.
pub const SENDERS_MAX: usize = 256;

/// Bytes of a registration: a record, 256 patterns of 255 bytes and a key document of 64 KiB fit.
pub const REGISTRATION_BYTES_MAX: usize = 192 * 1024;

/// Origins that a mailbox's losses are told of one by one; those beyond are told as a sum.
pub const LOSSES_MAX: usize = 100;

/// Bytes of a receipt: four names of 255 bytes, a hash and two signatures fit several times.
pub const RECEIPT_BYTES_MAX: usize = 8 * 1024;

/// Transactions that one `left` names: with ids of the usual 13 bytes they fit into the bytes of a `collect` request.
pub const LEFT_MAX: usize = 500;
