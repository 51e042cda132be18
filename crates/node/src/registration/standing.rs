//! How we stand with a relay after its answer, as the operator sees it.

use http::StatusCode;
use restante_federation_proto::Timestamp;
use restante_relay_api::RegistrationAnswer;
use serde::Serialize;

use super::errors::{AttemptError, text};
use crate::relay_call::CallError;

/// How we stand with a relay, as the operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Standing {
    /// The state.
    pub(crate) state: StandingState,
    /// Since when.
    pub(crate) at: Timestamp,
    /// What the relay, or the way to it, said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advice: Option<&'static str>,
    /// What the relay grants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) granted: Option<RegistrationAnswer>,
}

/// The states of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StandingState {
    /// The relay serves us.
    Registered,
    /// The relay knows no registrations: a Dendrite relay, or an old one. Whether it serves us shows when it does.
    NotOffered,
    /// The relay refuses to serve us.
    Refused,
    /// The relay could not be asked.
    Failed,
}

/// Said where a relay refuses: most want an invite.
const ADVICE_ON_REFUSAL: &str =
    "ask the relay's operator for an invitation, and give it to: restante relays join LINE";

/// What an answer means.
pub(super) fn standing(
    answer: &Result<RegistrationAnswer, AttemptError>,
    at: Timestamp,
) -> Standing {
    let (state, reason, advice) = match answer {
        Ok(_) => (StandingState::Registered, None, None),
        Err(AttemptError::Call(CallError::Unknown)) => (StandingState::NotOffered, None, None),
        Err(AttemptError::Call(CallError::Refused { status, text, .. }))
            if status.is_client_error() && status.as_u16() != 429 =>
        {
            (StandingState::Refused, Some(text.clone()), advice(*status))
        }
        Err(error) => (StandingState::Failed, Some(text(error)), None),
    };
    Standing { state, at, reason, advice, granted: answer.as_ref().ok().cloned() }
}

/// Who is forbidden to be served needs an invite; what else a relay refuses, its own words explain.
pub(super) fn advice(status: StatusCode) -> Option<&'static str> {
    (status == StatusCode::FORBIDDEN).then_some(ADVICE_ON_REFUSAL)
}
