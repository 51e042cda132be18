//! Events that the homeserver holds, asked for in its own name.

use http::StatusCode;
use restante_federation_proto::escape_path_segment;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::questions::{escape_query, unavailable};
use super::{Homeserver, Unavailable};

/// A PDU as the homeserver gives it.
pub(crate) type HeldPdu = Box<RawValue>;

/// The answer to both questions: a transaction of the homeserver's.
#[derive(Default, Deserialize)]
struct Answer {
    #[serde(default)]
    pdus: Vec<HeldPdu>,
}

impl Homeserver {
    /// Up to `limit` events of a room, back from those of `from` that the homeserver holds; none for a room that it is
    /// not in.
    pub(crate) async fn backfill(
        &self,
        room_id: &str,
        from: &[String],
        limit: usize,
    ) -> Result<Vec<HeldPdu>, Unavailable> {
        let room_id = escape_path_segment(room_id);
        let from: String = from.iter().map(|id| format!("&v={}", escape_query(id))).collect();
        let target = format!("/_matrix/federation/v1/backfill/{room_id}?limit={limit}{from}");
        let mut pdus = self.ask_for_pdus(&target).await?;
        pdus.truncate(limit);
        Ok(pdus)
    }

    /// The event itself, if the homeserver holds it and is in its room.
    pub(crate) async fn held_event(&self, event_id: &str) -> Result<Option<HeldPdu>, Unavailable> {
        let event_id = escape_path_segment(event_id);
        let pdus = self.ask_for_pdus(&format!("/_matrix/federation/v1/event/{event_id}")).await?;
        Ok(pdus.into_iter().next())
    }

    async fn ask_for_pdus(&self, target: &str) -> Result<Vec<HeldPdu>, Unavailable> {
        match self.ask(target).await? {
            (StatusCode::OK, body) => {
                let answer: Answer = serde_json::from_slice(&body).unwrap_or_default();
                Ok(answer.pdus)
            }
            (StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND, _) => {
                Ok(Vec::new())
            }
            (status, _) => Err(unavailable(status)),
        }
    }
}
