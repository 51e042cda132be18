//! Asks for a server's relay record: its web site, its node, and relays.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use restante_federation::{Patience, Peer};
use restante_federation_proto::ServerName;
use restante_relay_api::endpoints::{RECORD_FILE, relays_target};
use restante_relay_api::limits::RECORD_BYTES_MAX;

use super::{Candidate, LearnedFrom};
use crate::relay_call::{Call, CallError, call};
use crate::site::Site;

/// How long each source may take: mail waits for the first that has a record.
const PATIENCE: Patience =
    Patience { connect: Duration::from_secs(3), answer: Duration::from_secs(3) };

/// Who may have a record.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// The server's web site.
    WellKnown,
    /// The server's node.
    Server,
    /// A relay.
    Relay(Peer),
}

/// What a source said.
#[derive(Debug)]
pub(super) enum Said {
    /// This.
    Record(Candidate),
    /// That it has none.
    None,
    /// Nothing that can be used.
    Nothing,
}

/// Asks one source for the record of `server`.
pub(super) async fn ask(site: &Site, source: Source, server: &ServerName) -> Said {
    let (answer, from) = match source {
        Source::WellKnown => (file(site, server).await, LearnedFrom::WellKnown),
        Source::Server => {
            (question(site, &server.clone().into(), server).await, LearnedFrom::Server)
        }
        Source::Relay(relay) => {
            (question(site, &relay, server).await, LearnedFrom::Relay(relay.name))
        }
    };
    match answer {
        Ok(Some(json)) => Said::Record(Candidate { server: server.clone(), json, from }),
        Ok(None) => Said::None,
        Err(reason) => {
            tracing::debug!(%server, %from, reason, "asked for a relay record in vain");
            Said::Nothing
        }
    }
}

async fn file(site: &Site, server: &ServerName) -> Result<Option<Bytes>, String> {
    let file = site.exchange.web_file(server, RECORD_FILE, PATIENCE.connect + PATIENCE.answer);
    file.await.map(Some).map_err(|error| error.to_string())
}

/// Homeservers without a node, and relays of others, know no such endpoint: they have no record.
async fn question(site: &Site, whom: &Peer, server: &ServerName) -> Result<Option<Bytes>, String> {
    let target = relays_target(server);
    let asked = Call {
        method: Method::GET,
        target: &target,
        body: None,
        patience: PATIENCE,
        answer_bytes_max: RECORD_BYTES_MAX,
    };
    match call(site, whom, asked).await {
        Ok(json) => Ok(Some(json)),
        Err(CallError::Unknown) => Ok(None),
        // A reverse proxy whose node is away says so in no Matrix words.
        Err(CallError::Refused { status: StatusCode::NOT_FOUND, errcode: Some(_), .. }) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}
