//! Why a relay was not joined or left, and what to do then.

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

/// The same for who leaves.
pub(super) fn leaving(relay: &ServerName, error: AttemptError) -> RegistrationError {
    match error {
        AttemptError::Store(error) => error.into(),
        error => RegistrationError::Unanswered { relay: relay.clone(), error: text(&error) },
    }
}
