//! Registers servers, and lets them leave.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use restante_federation::{Freshness, KeyLookupError, VerifiedOrigin};
use restante_federation_proto::{ErrorCode, MatrixError, ServerName, Timestamp};
use restante_mailbox::{
    InviteHash, LeftMail as StoredLeftMail, Outgoing, RegisterOutcome, Registration, StoreError,
};
use restante_relay_api::limits::{REGISTRATION_BYTES_MAX, SENDERS_MAX};
use restante_relay_api::{
    LeaveRequest, LeftMail, OutgoingGranted, RegistrationAnswer, RegistrationRequest, RelayRecord,
    RelayRecordError,
};
use sha2::{Digest as _, Sha256};

use crate::admission::InviteRule;
use crate::callers::CameFrom;
use crate::errors::Refusal;
use crate::extract::{document_of, object};
use crate::registrations::{Change, stored_senders};
use crate::rules::Rules;
use crate::signed_at;
use crate::state::RelayState;

/// Mail that is kept for less would be gone before anybody can call for it, though its sender was told that it is
/// delivered. Most likely seconds were taken for milliseconds: 30 days are 43 minutes then.
const TIME_TO_LIVE_MIN: Duration = Duration::from_secs(3600);

/// Signatures on a record that are looked at; a server has one or two keys.
const RECORD_SIGNATURES_MAX: usize = 4;

/// Registers `caller`, as its request says, and tells what it is granted.
pub(crate) async fn register(
    relay: &RelayState,
    caller: &VerifiedOrigin,
    from: CameFrom,
    body: &Bytes,
) -> Result<RegistrationAnswer, Refusal> {
    let server = caller.server_name();
    let (request, rules, now): (RegistrationRequest, _, _) =
        (object(body)?, relay.rules(), relay.clock.now());
    signed_at::check_change(request.signed_at, &relay.started, now)?;
    check_form(relay, server, &request)?;
    learn_keys(relay, server, &request).await;
    let raw_record = Bytes::from(request.record.get().to_owned());
    let record = verified_record(relay, server, &raw_record, now).await?;
    if relay.admission.registrations.terms(server).await?.is_none() {
        relay.admission.callers.newcomer(from, rules.rates.newcomers)?;
    }
    let change = relay.admission.registrations.change(server).await;
    let before = relay.admission.registrations.stored(server).await?;
    if let Some(before) = &before {
        check_version(&record, &raw_record, before, now)?;
    }
    // Before the store is asked: what is under way may get there though nobody waits for its answer.
    let digest = Sha256::digest(body).into();
    let noted = change.last_signed().note(server, request.signed_at, digest, now)?;
    let registration = Registration {
        recipient: server.clone(),
        record: raw_record,
        senders: stored_senders(&request.senders),
        time_to_live: request.time_to_live(),
        registered_at: before.as_ref().map_or(now, |before| before.registered_at),
        admitted_by: rules.served.word_for(server),
        // Whether that is granted may change with the operator's rules; what was asked for does not.
        outgoing: if request.outgoing { Outgoing::Yes } else { Outgoing::No },
    };
    let needed = match before {
        Some(_) => InviteRule::NotNeeded,
        None => rules.served.invite_of(server),
    };
    let outcome = put(&change, registration, request.invite.as_deref(), needed, now).await?;
    if outcome != RegisterOutcome::Accepted {
        change.last_signed().take_back(server, noted);
    }
    expect_accepted(outcome)?;
    tracing::info!(mailbox = %server, record.version = record.version.as_millis(), "registered");
    let terms = relay.admission.registrations.terms(server).await?;
    let outgoing = match rules.onward.served.serves(server, terms.as_deref()) {
        true => Outgoing::Yes,
        false => Outgoing::No,
    };
    Ok(granted(&rules, request.time_to_live(), outgoing))
}

/// Ends the registration of `caller`, as its request says. An open relay goes on taking mail for whoever left, as for
/// everybody; who wants none there registers with an empty list of senders.
pub(crate) async fn leave(
    relay: &RelayState,
    caller: &VerifiedOrigin,
    from: CameFrom,
    body: &Bytes,
) -> Result<(), Refusal> {
    let server = caller.server_name();
    let (request, now): (LeaveRequest, _) = (object(body)?, relay.clock.now());
    signed_at::check_change(request.signed_at, &relay.started, now)?;
    let registrations = &relay.admission.registrations;
    if registrations.terms(server).await?.is_none() {
        relay.admission.callers.newcomer(from, relay.rules().rates.newcomers)?;
    }
    let change = registrations.change(server).await;
    if registrations.terms(server).await?.is_none()
        && relay.stores.custody.summary(server).await?.is_none()
    {
        // Anybody can make up servers that were never here; remembering each would put off those that are.
        return Ok(());
    }
    change.last_signed().note(server, request.signed_at, Sha256::digest(body).into(), now)?;
    let mail = match request.mail {
        LeftMail::Drop => StoredLeftMail::Drop,
        LeftMail::Keep => StoredLeftMail::Keep,
    };
    let dropped = change.leave(server, mail, now).await?;
    tracing::info!(mailbox = %server, envelopes.dropped = dropped, "left");
    Ok(())
}

fn check_form(
    relay: &RelayState,
    server: &ServerName,
    request: &RegistrationRequest,
) -> Result<(), Refusal> {
    let invalid = |text: String| Err(Refusal::bad(ErrorCode::InvalidParam, text));
    if server == relay.server_name() {
        return invalid("This server is a relay: it has no users, and no mail of its own".into());
    }
    if !request.senders.fit() {
        return invalid(format!(
            "The lists of senders hold at most {SENDERS_MAX} patterns together"
        ));
    }
    if request.time_to_live().is_some_and(|kept| kept < TIME_TO_LIVE_MIN) {
        let min = TIME_TO_LIVE_MIN.as_millis();
        return invalid(format!("time_to_live_ms is at least {min}: nobody calls for mail sooner"));
    }
    Ok(())
}

/// A document that comes along may prolong what is believed: nobody else brings one of a server that can't be asked.
async fn learn_keys(relay: &RelayState, server: &ServerName, request: &RegistrationRequest) {
    let brought = request.keys.as_ref().map(|keys| Bytes::from(keys.get().to_owned()));
    if let Some(document) = brought.and_then(|json| document_of(server, json)) {
        relay.keys.offer(&document).await;
    }
}

/// The record, if `server` made it and signed it with a key that is believed to be its own.
async fn verified_record(
    relay: &RelayState,
    server: &ServerName,
    raw: &Bytes,
    now: Timestamp,
) -> Result<RelayRecord, Refusal> {
    let unusable = |error: RelayRecordError| Refusal::bad(ErrorCode::BadJson, error.to_string());
    RelayRecord::parse(raw, now).map_err(unusable)?;
    let mut problem = RelayRecordError::Signature;
    for key_id in RelayRecord::key_ids(raw, server).into_iter().take(RECORD_SIGNATURES_MAX) {
        let key = match relay.keys.key(server, &key_id, Freshness::ValidNow).await {
            Ok(key) => key,
            Err(KeyLookupError::NoSuchKey { .. }) => continue,
            Err(error @ KeyLookupError::Unreachable { retry_after, .. }) => {
                let text = format!("The relay record can't be checked now: {error}");
                let unavailable = StatusCode::SERVICE_UNAVAILABLE;
                let error = MatrixError::new(unavailable, ErrorCode::Unknown, text);
                return Err(error.retry_after(retry_after).into());
            }
        };
        match RelayRecord::verify(raw, server, (&key_id, &key), now) {
            Ok(record) => return Ok(record),
            Err(error) => problem = error,
        }
    }
    Err(unusable(problem))
}

/// A record takes the place of an older one alone; the same one may come again.
fn check_version(
    record: &RelayRecord,
    raw: &Bytes,
    before: &Registration,
    now: Timestamp,
) -> Result<(), Refusal> {
    // What was stored was good then; if it can't be read any more, it keeps nothing out.
    let Ok(known) = RelayRecord::parse(&before.record, now) else { return Ok(()) };
    if record.version > known.version || *raw == before.record {
        return Ok(());
    }
    let text = format!(
        "A relay record of version {} is known here; make one of a later version",
        known.version.as_millis()
    );
    Err(Refusal::bad(ErrorCode::InvalidParam, text))
}

async fn put(
    change: &Change<'_>,
    registration: Registration,
    token: Option<&str>,
    needed: InviteRule,
    now: Timestamp,
) -> Result<RegisterOutcome, StoreError> {
    let invite = token.map(|token| InviteHash::of(token.as_bytes()));
    if invite.is_none() && needed == InviteRule::Needed {
        return Ok(RegisterOutcome::InviteUnknownOrUsed);
    }
    let mut outcome = change.register(registration.clone(), invite, now).await?;
    // Whoever is let in anyway may still have the invite of an earlier time in its configuration.
    if outcome == RegisterOutcome::InviteUnknownOrUsed && needed == InviteRule::NotNeeded {
        outcome = change.register(registration, None, now).await?;
    }
    Ok(outcome)
}

fn expect_accepted(outcome: RegisterOutcome) -> Result<(), Refusal> {
    match outcome {
        RegisterOutcome::Accepted => Ok(()),
        RegisterOutcome::InviteUnknownOrUsed => Err(no_invite()),
        RegisterOutcome::TooMany => Err(too_many()),
        RegisterOutcome::TooLarge => {
            let text = format!(
                "The record and the lists of senders are too large; a registration has at most {REGISTRATION_BYTES_MAX} bytes"
            );
            let too_large = StatusCode::PAYLOAD_TOO_LARGE;
            Err(MatrixError::new(too_large, ErrorCode::TooLarge, text).into())
        }
    }
}

/// The same words for an invite that is missing, unknown, used, expired, or another server's.
fn no_invite() -> Refusal {
    Refusal::forbidden(
        "This relay serves whom its operator has invited; ask for an invite (restante mailbox invite)",
    )
}

fn too_many() -> Refusal {
    let text = "This relay serves as many servers as it can; ask its operator";
    MatrixError::new(StatusCode::FORBIDDEN, ErrorCode::Forbidden, text).into()
}

fn granted(rules: &Rules, asked: Option<Duration>, outgoing: Outgoing) -> RegistrationAnswer {
    let of_relay = rules.age.time_to_live;
    let kept = asked.map_or(of_relay, |asked| asked.min(of_relay));
    RegistrationAnswer {
        time_to_live_ms: u64::try_from(kept.as_millis()).unwrap_or(u64::MAX),
        envelopes_max: rules.quotas.mailbox.envelopes_max,
        bytes_max: rules.quotas.mailbox.bytes_max,
        origin_envelopes_max: rules.quotas.origin.envelopes_max,
        origin_bytes_max: rules.quotas.origin.bytes_max,
        outgoing: (outgoing == Outgoing::Yes).then_some(OutgoingGranted {
            envelopes_max: rules.onward.limits.origin.envelopes_max,
            bytes_max: rules.onward.limits.origin.bytes_max,
            destination_envelopes_max: rules.onward.destination.envelopes_max,
            destination_bytes_max: rules.onward.destination.bytes_max,
        }),
    }
}
