//! What the homeserver is asked in its own name: what it stored, a room's version, its key document.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use restante_federation::{Patience, collect_limited, signed_request};
use restante_federation_proto::{
    KEY_DOCUMENT_BYTES_MAX, KeyDocument, RequestTarget, escape_path_segment,
};
use restante_relay_api::endpoints::{KEY_SERVER, VERSION};
use serde::Deserialize;

use super::Homeserver;

/// For one question; the homeserver is next door.
const QUESTION_PATIENCE: Patience =
    Patience { connect: Duration::from_secs(5), answer: Duration::from_secs(20) };

/// Answers are read up to here so that their connection can be used again: the state ids of a room with 40,000
/// state events fit.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A version that no homeserver knows, so that it answers with the room's own.
const NO_VERSION: &str = "zzz";

/// The homeserver can't answer now. Temporary.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the homeserver can't answer: {0}")]
pub(crate) struct Unavailable(pub(crate) String);

/// What the homeserver says of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It has it.
    Present,
    /// It does not have it, or can't say.
    Absent,
    /// It is not in that room.
    NotInRoom,
    /// It joined that room and does not have its whole state yet, so that it can't say.
    Incomplete,
}

/// How the code ends that Synapse answers with for a room that it joined and whose state it still fetches (MSC3895).
const PARTIAL_STATE: &str = "UNABLE_DUE_TO_PARTIAL_STATE";

#[derive(Deserialize)]
struct IncompatibleVersion {
    room_version: String,
}

#[derive(Deserialize)]
struct Refusal {
    errcode: String,
}

impl Homeserver {
    /// Whether the event is stored, be it as an outlier or rejected.
    pub(crate) async fn event(&self, event_id: &str) -> Result<Presence, Unavailable> {
        let event_id = escape_path_segment(event_id);
        let answer = self.ask(&format!("/_matrix/federation/v1/event/{event_id}")).await?;
        presence(&answer)
    }

    /// Whether the event is stored with its state, and not rejected: whether it counts as a predecessor.
    pub(crate) async fn state_ids(
        &self,
        room_id: &str,
        event_id: &str,
    ) -> Result<Presence, Unavailable> {
        let (room_id, event_id) = (escape_path_segment(room_id), escape_query(event_id));
        let target = format!("/_matrix/federation/v1/state_ids/{room_id}?event_id={event_id}");
        presence(&self.ask(&target).await?)
    }

    /// The room's version; `None` for a room that the homeserver does not know.
    pub(crate) async fn room_version(&self, room_id: &str) -> Result<Option<String>, Unavailable> {
        let own_name = &self.shared.identity.server_name;
        let user_id = escape_path_segment(&format!("@x:{own_name}"));
        let room_id = escape_path_segment(room_id);
        let target =
            format!("/_matrix/federation/v1/make_join/{room_id}/{user_id}?ver={NO_VERSION}");
        match self.ask(&target).await? {
            (StatusCode::BAD_REQUEST, body) => {
                let body: Option<IncompatibleVersion> = serde_json::from_slice(&body).ok();
                Ok(body.map(|body| body.room_version))
            }
            (StatusCode::NOT_FOUND | StatusCode::FORBIDDEN, _) => Ok(None),
            (status, _) => Err(unavailable(status)),
        }
    }

    /// Whether it answers: a 5xx is what stands before it, or itself while it starts.
    pub(crate) async fn is_up(&self) -> bool {
        let answer = self.get(VERSION, QUESTION_PATIENCE).await;
        answer.is_ok_and(|(status, _)| !status.is_server_error())
    }

    /// The document that the homeserver itself serves; `None` if it can't be had now.
    pub(crate) async fn key_document(&self) -> Option<KeyDocument> {
        let (status, body) = self.get(KEY_SERVER, QUESTION_PATIENCE).await.ok()?;
        if status != StatusCode::OK || body.len() > KEY_DOCUMENT_BYTES_MAX {
            return None;
        }
        KeyDocument::parse(body)
            .ok()
            .filter(|document| *document.server_name() == self.shared.identity.server_name)
    }

    /// Asks in the homeserver's own name, when its turn has come.
    pub(super) async fn ask(&self, target: &str) -> Result<(StatusCode, Bytes), Unavailable> {
        self.ask_for(target, ANSWER_BYTES_MAX).await
    }

    /// The same, for an answer of at most `bytes_max`; a longer one comes as none.
    pub(super) async fn ask_for(
        &self,
        target: &str,
        bytes_max: usize,
    ) -> Result<(StatusCode, Bytes), Unavailable> {
        self.shared.pace.turn().await;
        self.get_limited(target, QUESTION_PATIENCE, bytes_max).await
    }

    pub(super) async fn get(
        &self,
        target: &str,
        patience: Patience,
    ) -> Result<(StatusCode, Bytes), Unavailable> {
        self.get_limited(target, patience, ANSWER_BYTES_MAX).await
    }

    async fn get_limited(
        &self,
        target: &str,
        patience: Patience,
        bytes_max: usize,
    ) -> Result<(StatusCode, Bytes), Unavailable> {
        let identity = &self.shared.identity;
        let target: RequestTarget =
            target.parse().map_err(|_| Unavailable("the question can't be signed".to_owned()))?;
        let request = signed_request(identity, Method::GET, &target, &identity.server_name, None);
        let asked = async {
            let exchange = &self.shared.exchange;
            let answer = exchange.exchange(&self.shared.peer, request, patience).await;
            let answer = answer.map_err(|error| Unavailable(error.to_string()))?;
            let status = answer.status();
            let body = collect_limited(answer.into_body(), bytes_max).await;
            // The status alone answers most questions; a body that is too long is not read on.
            Ok((status, body.unwrap_or_default()))
        };
        match tokio::time::timeout(patience.answer, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(Unavailable("no answer in time".to_owned())),
        }
    }
}

fn presence((status, body): &(StatusCode, Bytes)) -> Result<Presence, Unavailable> {
    match *status {
        StatusCode::OK => Ok(Presence::Present),
        StatusCode::FORBIDDEN if errcode(body).ends_with(PARTIAL_STATE) => Ok(Presence::Incomplete),
        StatusCode::FORBIDDEN => Ok(Presence::NotInRoom),
        // 400 is the answer for an id that can't be one.
        StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => Ok(Presence::Absent),
        status => Err(unavailable(status)),
    }
}

fn errcode(body: &[u8]) -> String {
    serde_json::from_slice::<Refusal>(body).map(|refusal| refusal.errcode).unwrap_or_default()
}

pub(super) fn unavailable(status: StatusCode) -> Unavailable {
    Unavailable(match status {
        StatusCode::UNAUTHORIZED => {
            "it does not accept our signature; check that signing_key is the homeserver's own"
                .into()
        }
        status => format!("it answers {status}"),
    })
}

/// Like a path segment, and `+` and `&` as well, which mean something else in a query.
pub(super) fn escape_query(value: &str) -> String {
    escape_path_segment(value).replace('+', "%2B").replace('&', "%26").replace('=', "%3D")
}
