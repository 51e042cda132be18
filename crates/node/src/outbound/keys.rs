//! Answers the homeserver's look-ups of other servers' keys, with believed documents alone.
//!
//! A look-up that fails is always 404: Synapse goes on to its next source of keys and backs off from nobody. Asking
//! those who vouch for keys may make the homeserver look the same keys up again, so that a look-up within a look-up
//! waits for the question to the server itself at most, and is else answered at once from what is kept.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::response::Response;
use bytes::Bytes;
use http::{Request, StatusCode};
use restante_federation::{Answer, Body, Patience, Peer, ask, collect_limited, is_sign_of_life};
use restante_federation_proto::{
    ErrorCode, KEY_DOCUMENT_BYTES_MAX, KeyDocument, MatrixError, NOTARY_DOCUMENTS_MAX, ServerName,
    Timestamp, unescape_path_segment,
};
use restante_relay_api::endpoints::KEY_QUERY;
use serde::Deserialize;
use tokio::sync::watch;

use super::hook::HookCall;
use super::patience::{KEYS, KEYS_ELSEWHERE};
use super::unrelayable::{StandIn, stand_in};
use super::{json_response, refuse};
use crate::answer;
use crate::background::Background;
use crate::destinations::Admission;
use crate::site::Site;

/// Bytes of a notary query: a server name, a key id and a time for each of 256 servers.
const QUERY_BYTES_MAX: usize = 256 * 1024;

/// How long a notary query may take; Synapse waits 60 s.
const NOTARY_WAIT: std::time::Duration = std::time::Duration::from_secs(40);

/// Answers look-ups. Clones share which are under way.
#[derive(Clone)]
pub(super) struct KeyLookups {
    site: Site,
    background: Background,
    under_way: UnderWay,
}

/// What each server that is being asked says of itself.
type UnderWay = Arc<Mutex<HashMap<ServerName, watch::Receiver<Said>>>>;

/// What a server says of its keys.
#[derive(Debug, Clone)]
enum Said {
    /// It is being asked.
    NothingYet,
    /// This; `None` if it can't be asked, or gave no document of its own.
    This(Option<Answer>),
}

impl KeyLookups {
    pub(super) fn new(site: Site, background: Background) -> Self {
        Self { site, background, under_way: Arc::default() }
    }

    /// `GET /_matrix/key/v2/server` of another server: its own answer, or the document that is believed.
    pub(super) async fn of_server(&self, call: &HookCall, request: Request<Body>) -> Response {
        let server = &call.destination;
        let lookup = loop {
            match self.begin(server) {
                Ok(lookup) => break lookup,
                Err(said) => match what_is_said(said).await {
                    Some(Some(answer)) => return answer::for_homeserver(answer),
                    Some(None) => return self.kept(call).await,
                    // Whoever asked went away without an answer.
                    None => {}
                },
            }
        };
        let answer = self.ask(server, request).await;
        lookup.said.send_replace(Said::This(answer.clone()));
        if let Some(answer) = answer {
            return answer::for_homeserver(answer);
        }
        let now = self.site.clock.now();
        let kept = self.site.keys.believed(server).await;
        if kept.is_none_or(|kept| kept.document.valid_until() < now) {
            self.search_elsewhere(server, now).await;
        }
        self.kept(call).await
    }

    /// Asks those who vouch for keys. What comes too late for this look-up is there for the next one.
    async fn search_elsewhere(&self, server: &ServerName, now: Timestamp) {
        let (found, search) = tokio::sync::oneshot::channel();
        let (keys, server) = (self.site.keys.clone(), server.clone());
        self.background.spawn(async move {
            if let Err(error) = keys.refreshed(&server, now).await {
                tracing::info!(%server, %error, "no believed keys");
            }
            found.send(()).ok();
        });
        tokio::time::timeout(KEYS_ELSEWHERE, search).await.ok();
    }

    /// `/_matrix/key/v2/query` of ourselves: believed documents, countersigned.
    pub(super) async fn as_notary(&self, call: &HookCall, body: Body) -> Response {
        let body = match collect_limited(body, QUERY_BYTES_MAX).await {
            Ok(body) => body,
            Err(error) => {
                let status = StatusCode::PAYLOAD_TOO_LARGE;
                return refuse(&MatrixError::new(status, ErrorCode::TooLarge, error.to_string()));
            }
        };
        let wanted = match wanted(call.target.as_str(), &body) {
            Ok(wanted) => wanted,
            Err(error) => return refuse(&error),
        };
        let answer = tokio::time::timeout(NOTARY_WAIT, self.site.keys.notary_answer(&wanted)).await;
        let nothing = || Bytes::from_static(br#"{"server_keys":[]}"#);
        json_response(StatusCode::OK, answer.unwrap_or_else(|_| nothing()))
    }

    /// The server's own answer, if it gives one now that is a key document of its own.
    async fn ask(&self, server: &ServerName, request: Request<Body>) -> Option<Answer> {
        let destinations = &self.site.destinations;
        let patience = match destinations.admit(server) {
            Admission::Attempt => KEYS,
            Admission::Probe => {
                Patience { connect: KEYS.connect.min(destinations.probe_connect()), ..KEYS }
            }
            Admission::Offline => return None,
        };
        let peer = Peer::from(server.clone());
        let exchange = &*self.site.exchange;
        let asked = ask(exchange, &peer, request, patience, KEY_DOCUMENT_BYTES_MAX).await;
        let answer = match asked {
            Ok(answer) if is_sign_of_life(answer.outcome()) => answer,
            Ok(_) | Err(_) => {
                destinations.failed(server).await;
                return None;
            }
        };
        destinations.answered(server).await;
        let document = KeyDocument::parse(answer.body.clone()).ok()?;
        if !answer.status.is_success() || document.server_name() != server {
            return None;
        }
        self.learn(document);
        Some(answer)
    }

    /// Lets the key ring fetch what the server has just shown, unless it has a document as good.
    fn learn(&self, shown: KeyDocument) {
        let keys = self.site.keys.clone();
        self.background.spawn(async move {
            let server = shown.server_name();
            let kept = keys.believed(server).await;
            if kept.is_some_and(|kept| kept.document.valid_until() >= shown.valid_until()) {
                return;
            }
            if let Err(error) = keys.refreshed(server, shown.valid_until()).await {
                tracing::debug!(%server, %error, "keys were shown to the homeserver and not learned");
            }
        });
    }

    /// What is believed, asking nobody.
    async fn kept(&self, call: &HookCall) -> Response {
        match self.site.keys.believed(&call.destination).await {
            Some(kept) => json_response(StatusCode::OK, kept.document.raw().clone()),
            None => {
                let StandIn { status, body } = stand_in(call.target.as_str(), &call.destination);
                json_response(status, body)
            }
        }
    }

    /// Begins a look-up, or else what the server says to the one that is under way.
    fn begin(&self, server: &ServerName) -> Result<Lookup, watch::Receiver<Said>> {
        let mut under_way = lock(&self.under_way);
        if let Some(said) = under_way.get(server) {
            return Err(said.clone());
        }
        let said = watch::Sender::new(Said::NothingYet);
        under_way.insert(server.clone(), said.subscribe());
        Ok(Lookup { under_way: self.under_way.clone(), server: server.clone(), said })
    }
}

/// What a server said to another look-up, which asks it for a few seconds at most; `None` if that one was cut off.
async fn what_is_said(mut said: watch::Receiver<Said>) -> Option<Option<Answer>> {
    let said = said.wait_for(|said| matches!(said, Said::This(_))).await.ok()?;
    match &*said {
        Said::This(answer) => Some(answer.clone()),
        Said::NothingYet => None,
    }
}

/// A look-up under way, until dropped.
struct Lookup {
    under_way: UnderWay,
    server: ServerName,
    said: watch::Sender<Said>,
}

impl Drop for Lookup {
    fn drop(&mut self) {
        lock(&self.under_way).remove(&self.server);
    }
}

fn lock(
    under_way: &Mutex<HashMap<ServerName, watch::Receiver<Said>>>,
) -> MutexGuard<'_, HashMap<ServerName, watch::Receiver<Said>>> {
    under_way.lock().expect("nothing panics while it holds the look-ups")
}

#[derive(Deserialize)]
struct Query {
    server_keys: BTreeMap<ServerName, BTreeMap<String, Criteria>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Criteria {
    minimum_valid_until_ts: Option<Timestamp>,
}

/// The servers that a notary query asks for, each with the time until which its document should be valid.
fn wanted(target: &str, body: &[u8]) -> Result<Vec<(ServerName, Timestamp)>, MatrixError> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let one = path.strip_prefix(KEY_QUERY).and_then(|rest| rest.strip_prefix('/'));
    if let Some(one) = one {
        let segment = one.split('/').next().unwrap_or_default();
        let server = unescape_path_segment(segment).and_then(|name| name.parse().ok());
        let server = server.ok_or_else(|| bad("the path names no Matrix server"))?;
        let until = query.split('&').find_map(|pair| pair.strip_prefix("minimum_valid_until_ts="));
        let until = until.and_then(|until| until.parse().ok()).unwrap_or(0);
        return Ok(vec![(server, Timestamp::from_millis(until))]);
    }
    let query: Query = serde_json::from_slice(body).map_err(|error| bad(error.to_string()))?;
    if query.server_keys.len() > NOTARY_DOCUMENTS_MAX {
        return Err(bad(format!("a query may name at most {NOTARY_DOCUMENTS_MAX} servers")));
    }
    let latest = |criteria: BTreeMap<String, Criteria>| {
        let all = criteria.into_values().filter_map(|wanted| wanted.minimum_valid_until_ts);
        all.max().unwrap_or(Timestamp::EPOCH)
    };
    Ok(query.server_keys.into_iter().map(|(server, wanted)| (server, latest(wanted))).collect())
}

fn bad(text: impl Into<String>) -> MatrixError {
    MatrixError::new(StatusCode::BAD_REQUEST, ErrorCode::BadJson, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(target: &str, body: &str) -> Result<Vec<(String, u64)>, u16> {
        wanted(target, body.as_bytes())
            .map(|all| all.iter().map(|(name, at)| (name.to_string(), at.as_millis())).collect())
            .map_err(|error| error.status.as_u16())
    }

    #[test]
    fn a_notary_query_names_servers_and_the_latest_time_asked_for() {
        let body = r#"{"server_keys":{"b.test":{"ed25519:1":{"minimum_valid_until_ts":5},"ed25519:2":{"minimum_valid_until_ts":7}},"c.test":{}}}"#;
        let expected = vec![("b.test".to_owned(), 7), ("c.test".to_owned(), 0)];
        assert_eq!(asked("/_matrix/key/v2/query", body), Ok(expected));
        let one = asked("/_matrix/key/v2/query/b.test%3A8448?minimum_valid_until_ts=9", "");
        assert_eq!(one, Ok(vec![("b.test:8448".to_owned(), 9)]));
    }

    #[test]
    fn a_malformed_notary_query_is_refused() {
        assert_eq!(asked("/_matrix/key/v2/query", "{}"), Err(400));
        assert_eq!(asked("/_matrix/key/v2/query", "nonsense"), Err(400));
        assert_eq!(asked("/_matrix/key/v2/query/not%20a%20name", ""), Err(400));
        let many: Vec<String> = (0..257).map(|n| format!("\"s{n}.test\":{{}}")).collect();
        let many = format!("{{\"server_keys\":{{{}}}}}", many.join(","));
        assert_eq!(asked("/_matrix/key/v2/query", &many), Err(400));
    }
}
