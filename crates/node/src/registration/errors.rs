//! Why a relay was not joined or left, and what to do then.

use http::StatusCode;
use restante_federation::BaseUrl;
use restante_federation_proto::ServerName;
use restante_sqlite::StoreError;

use super::standing::advice;
use crate::relay_call::CallError;

/// Why a relay was not joined or left; each says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistrationError {
    /// The line's URL can't be used.
    #[error("the URL in the line can't be used: {0}")]
    Url(String),
    /// Nothing says where the relay is.
    #[error(
        "{0} is a key, not a name in the DNS, and the line does not say where it is; ask for one with a URL"
    )]
    Nowhere(ServerName),
    /// The relay is known at another URL than the line's.
    #[error(
        "{relay} is known at {known}, and the line leads to {line}. If its operator says that it moved, run: restante relays remove {own} {relay}, then: restante relays add {own} {relay} --url {line}, and join again; one that the node's configuration names is changed there"
    )]
    Elsewhere {
        /// The relay.
        relay: ServerName,
        /// Where the relay book says it is.
        known: BaseUrl,
        /// Where the line says it is.
        line: BaseUrl,
        /// Our server.
        own: ServerName,
    },
    /// It is none of our relays.
    #[error("{0} is none of this server's relays")]
    NotOurs(ServerName),
    /// The relay takes no registrations.
    #[error(
        "{0} takes no registrations; if it serves everybody, name it with: restante relays add OWN-SERVER {0} --url URL"
    )]
    NotOffered(ServerName),
    /// The relay refused.
    #[error("{relay} refuses: {text}{}", .advice.map(|advice| format!("; {advice}")).unwrap_or_default())]
    Refused {
        /// The relay.
        relay: ServerName,
        /// What it says.
        text: String,
        /// What to do about it.
        advice: Option<&'static str>,
    },
    /// The relay could not be asked.
    #[error("{relay} could not be asked: {error}. Nothing was changed; try again")]
    Unanswered {
        /// The relay.
        relay: ServerName,
        /// Why.
        error: String,
    },
    /// The relay refused to be left.
    #[error("{relay} does not let this server leave: {error}. It was not left")]
    Stays {
        /// The relay.
        relay: ServerName,
        /// What it says.
        error: String,
    },
    /// Whether the relay heard that we leave is not known.
    #[error(
        "it is not certain that {relay} heard that this server leaves: {error}. It is told again until it answers, and may drop mail at any time; if it is gone for good, remove it with: restante relays remove OWN-SERVER {relay}"
    )]
    Untold {
        /// The relay.
        relay: ServerName,
        /// Why.
        error: String,
    },
    /// The node's database refused.
    #[error("the node's database refused")]
    Store(#[from] StoreError),
}

/// Why one attempt at registering failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttemptError {
    /// The relay, or the way to it.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The node's database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AttemptError {
    /// Whether the relay may have refused because it knows a newer record of ours.
    pub(super) fn is_perhaps_for_the_record(&self) -> bool {
        let bad_request = StatusCode::BAD_REQUEST;
        matches!(self, Self::Call(CallError::Refused { status, .. }) if *status == bad_request)
    }

    /// Whether the relay said that it did nothing, and will not. After all else it may have done what was asked.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Call(CallError::Clock { .. } | CallError::FarAhead { .. }) => true,
            Self::Call(CallError::Refused { status, errcode, .. }) => {
                let is_passing = matches!(
                    *status,
                    StatusCode::NOT_FOUND
                        | StatusCode::METHOD_NOT_ALLOWED
                        | StatusCode::TOO_MANY_REQUESTS
                );
                // Without a code it is not the relay that speaks.
                status.is_client_error() && !is_passing && errcode.is_some()
            }
            Self::Call(_) | Self::Store(_) => false,
        }
    }
}

/// The error with its causes.
pub(super) fn text(error: &AttemptError) -> String {
    crate::retriever::chain(error)
}

/// What an attempt's failure means for who joins.
pub(super) fn joining(relay: &ServerName, error: AttemptError) -> RegistrationError {
    let relay = relay.clone();
    match error {
        AttemptError::Store(error) => error.into(),
        AttemptError::Call(CallError::Unknown) => RegistrationError::NotOffered(relay),
        AttemptError::Call(CallError::Refused { status, text, .. }) => {
            RegistrationError::Refused { relay, text, advice: advice(status) }
        }
        error => RegistrationError::Unanswered { relay, error: text(&error) },
    }
}

/// What it means for who leaves that the relay may not have heard it.
pub(super) fn leaving(relay: &ServerName, error: AttemptError) -> RegistrationError {
    match error {
        AttemptError::Store(error) => error.into(),
        error => RegistrationError::Untold { relay: relay.clone(), error: text(&error) },
    }
}

/// What a refusal means for who leaves.
pub(super) fn staying(relay: &ServerName, error: AttemptError) -> RegistrationError {
    RegistrationError::Stays { relay: relay.clone(), error: text(&error) }
}
