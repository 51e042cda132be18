//! The two requests that a relay gets about our mailbox: to serve us, and that we leave.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use restante_federation::{Patience, Peer};
use restante_federation_proto::Timestamp;
use restante_relay_api::endpoints::{MAILBOX, relays_target};
use restante_relay_api::limits::RECORD_BYTES_MAX;
use restante_relay_api::{
    LeaveRequest, LeftMail, RegistrationAnswer, RegistrationRequest, RelayRecord,
};

use crate::relay_call::{Call, CallError, ClockOffset, call};
use crate::site::Site;

/// How long discovery and connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long the answer may take: a relay that does not know our key asks for it first, and for that it has ten seconds.
const ANSWER: Duration = Duration::from_secs(15);

/// How far ahead a relay's clock may be for leaving. What says that we leave drops a mailbox whenever its time comes, and a
/// clock that runs on its own is seconds off, not an hour.
const LEAVE_AHEAD_MAX: Duration = Duration::from_secs(3600);

/// Bytes of an answer: five numbers, or an error.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Asks `relay` to serve us. A bare 404 counts as that it knows no registrations, as a relay of Dendrite's: if a reverse
/// proxy gave it, it is asked again with the next renewal.
pub(super) async fn register(
    site: &Site,
    relay: &Peer,
    request: &RegistrationRequest,
) -> Result<RegistrationAnswer, CallError> {
    let answer = send(site, relay, Method::PUT, request.to_canonical_json()).await;
    let answer = answer.map_err(|error| match error {
        CallError::Refused { status: StatusCode::NOT_FOUND, errcode: None, .. } => {
            CallError::Unknown
        }
        error => error,
    })?;
    serde_json::from_slice(&answer).map_err(|error| CallError::Unreadable(error.to_string()))
}

/// Tells `relay` that we leave; once more by the relay's clock, if it says that ours is wrong by not too much.
pub(super) async fn leave(site: &Site, relay: &Peer, mail: LeftMail) -> Result<(), CallError> {
    let body = |signed_at| LeaveRequest { mail, signed_at }.to_canonical_json();
    let first = send(site, relay, Method::DELETE, body(site.clock.now())).await;
    let Err(CallError::Clock { theirs }) = first else { return first.map(drop) };
    let ahead = theirs.since(site.clock.now());
    if ahead > LEAVE_AHEAD_MAX {
        return Err(CallError::FarAhead { ahead });
    }
    send(site, relay, Method::DELETE, body(by_clock(site, theirs))).await.map(drop)
}

/// The time by the clock of a relay that just said `theirs`.
pub(super) fn by_clock(site: &Site, theirs: Timestamp) -> Timestamp {
    let ours = site.clock.now();
    // Never before what it said: a relay takes nothing that was signed before it was started.
    ClockOffset::between(ours, theirs).apply(ours).max(theirs)
}

/// The record of ours that `relay` holds, by our own signature: no relay makes up one of a later version.
pub(super) async fn own_record_at(site: &Site, relay: &Peer) -> Option<HeldRecord> {
    let target = relays_target(site.server_name());
    let asked = Call {
        method: Method::GET,
        target: &target,
        body: None,
        patience: Patience { connect: CONNECT, answer: ANSWER },
        answer_bytes_max: RECORD_BYTES_MAX,
    };
    let json = call(site, relay, asked).await.ok()?;
    let (own, key) = (site.server_name(), &site.identity.key);
    let signed_with = (key.id(), &key.public_key());
    let record = RelayRecord::verify(&json, own, signed_with, site.clock.now()).ok()?;
    Some(HeldRecord { version: record.version, json })
}

/// A record of ours that somebody else holds.
pub(super) struct HeldRecord {
    pub(super) version: Timestamp,
    json: Bytes,
}

impl HeldRecord {
    /// Whether it keeps `ours` out.
    pub(super) fn is_later_than(&self, ours: &Bytes) -> bool {
        let ours_version = serde_json::from_slice::<RelayRecord>(ours).map(|ours| ours.version);
        self.json != *ours && ours_version.is_ok_and(|ours| ours <= self.version)
    }
}

async fn send(
    site: &Site,
    relay: &Peer,
    method: Method,
    body: Vec<u8>,
) -> Result<Bytes, CallError> {
    let target = MAILBOX.parse().expect("the endpoint's path holds nothing that can't be signed");
    let patience = Patience { connect: CONNECT, answer: ANSWER };
    let asked = Call {
        method,
        target: &target,
        body: Some(body.into()),
        patience,
        answer_bytes_max: ANSWER_BYTES_MAX,
    };
    call(site, relay, asked).await
}
