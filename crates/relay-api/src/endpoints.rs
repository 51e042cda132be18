//! Paths of the endpoints, and the names of headers and members.

use restante_federation_proto::{RequestTarget, ServerName, escape_path_segment};

/// Prefix of a homeserver's `/send`.
pub const SEND: &str = "/_matrix/federation/v1/send/";

/// Prefix of a deposit.
pub const SEND_RELAY: &str = "/_matrix/federation/v1/send_relay/";

/// Prefix of collecting one.
pub const RELAY_TXN: &str = "/_matrix/federation/v1/relay_txn/";

/// Collecting a batch.
pub const COLLECT: &str = "/_matrix/federation/unstable/org.restante/collect";

/// What became of mail that the caller left.
pub const LEFT: &str = "/_matrix/federation/unstable/org.restante/left";

/// Registering a mailbox (`PUT`), and leaving (`DELETE`).
pub const MAILBOX: &str = "/_matrix/federation/unstable/org.restante/mailbox";

/// Prefix of asking for a server's relay record.
pub const RELAYS: &str = "/_matrix/federation/unstable/org.restante/relays/";

/// Where a server's web site has its relay record.
pub const RECORD_FILE: &str = "/.well-known/matrix/restante";

/// Name and version.
pub const VERSION: &str = "/_matrix/federation/v1/version";

/// Own keys.
pub const KEY_SERVER: &str = "/_matrix/key/v2/server";

/// Keys of others.
pub const KEY_QUERY: &str = "/_matrix/key/v2/query";

/// Prefix of the members that a node adds to a transaction; no part of what the origin signed.
pub const MEMBER_PREFIX: &str = "org.restante.";

/// The member with the proof.
pub const PROOF_MEMBER: &str = "org.restante.proof";

/// The member with the waybill.
pub const WAYBILL_MEMBER: &str = "org.restante.waybill";

/// The member with the origin's key document.
pub const KEYS_MEMBER: &str = "org.restante.keys";

/// The member with events that the homeserver itself never sent to the destination.
pub const CAPSULE_MEMBER: &str = "org.restante.capsule";

/// The member with the id by which logs name the delivery ([`crate::RequestId`]).
pub const REQUEST_ID_MEMBER: &str = "org.restante.request_id";

/// The member with the origin's relay record: where answers can be left.
pub const RECORD_MEMBER: &str = "org.restante.relays";

/// The member by which a registered origin asks the relay to deliver its mail onward to a server that the relay does not serve:
/// `true`.
pub const ONWARD_MEMBER: &str = "org.restante.onward";

/// The member of the answer to a deposit with the relay's receipt.
pub const RECEIPT_MEMBER: &str = "org.restante.receipt";

/// The header that carries the waybill of a direct send: its JSON in unpadded standard base64.
pub const WAYBILL_HEADER: &str = "x-restante-waybill";

/// The header of a collect's answer that holds the id of its last envelope, where more waits behind that: whoever has the head can
/// ask for the next part.
pub const MORE_AFTER_HEADER: &str = "x-restante-more-after";

/// The localpart in the user id of our deposits; Dendrite ignores it, and so does a relay.
const MAILBOX_LOCALPART: &str = "restante";

/// The target of a deposit for `recipient`, escaped as Dendrite escapes it.
pub fn send_relay_target(txn_id: &str, recipient: &ServerName) -> RequestTarget {
    let user_id = mailbox_user_id(recipient);
    let target =
        format!("{SEND_RELAY}{}/{}", escape_path_segment(txn_id), escape_path_segment(&user_id));
    target.parse().expect("escaped segments hold only printable ASCII that may be signed")
}

/// The target of the question which relays hold `server`'s mail.
pub fn relays_target(server: &ServerName) -> RequestTarget {
    let target = format!("{RELAYS}{}", escape_path_segment(server.as_str()));
    target.parse().expect("an escaped segment holds only printable ASCII that may be signed")
}

/// The user id that stands for `recipient`'s mailbox.
pub fn mailbox_user_id(recipient: &ServerName) -> String {
    format!("@{MAILBOX_LOCALPART}:{recipient}")
}
