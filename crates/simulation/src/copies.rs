//! Who said that it has which mail: the witness by which losses are told from what was never taken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{Method, Request};
use restante_federation_proto::{RoomVersion, ServerName, event_id, unescape_path_segment};
use restante_relay_api::endpoints::{CAPSULE_MEMBER, SEND, SEND_RELAY};
use serde_json::Value;

/// What one request carries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cargo {
    /// For whom it is; `None` for the door's owner.
    pub(crate) destination: Option<ServerName>,
    pub(crate) origin: Option<ServerName>,
    pub(crate) txn_id: String,
    pub(crate) events: BTreeSet<String>,
    /// Texts of messages to devices.
    pub(crate) messages: Vec<String>,
}

/// What was taken, by destination.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken {
    /// Transactions by origin and id that anybody said to have taken.
    pub(crate) transactions: BTreeSet<(ServerName, String)>,
    /// Events that an honest relay, or the destination itself, has said to have.
    pub(crate) events: BTreeSet<String>,
    /// Messages to devices likewise, by origin.
    pub(crate) messages: BTreeSet<(ServerName, String)>,
}

pub(crate) struct Copies {
    versions: BTreeMap<String, RoomVersion>,
    /// Servers whose nodes keep what they leave with relays until it has arrived, and are there in the end: what a relay
    /// loses of theirs arrives all the same.
    accountable: BTreeSet<ServerName>,
    taken: Mutex<BTreeMap<ServerName, Taken>>,
    /// Transactions that a homeserver itself answered with 200, by origin and id.
    at_homeservers: Mutex<BTreeSet<(ServerName, ServerName, String)>>,
}

impl Copies {
    /// Of rooms with these versions.
    pub(crate) fn new(
        versions: BTreeMap<String, RoomVersion>,
        accountable: BTreeSet<ServerName>,
    ) -> Self {
        Self { versions, accountable, taken: Mutex::default(), at_homeservers: Mutex::default() }
    }

    /// The homeserver of `server` said 200 to `cargo`.
    pub(crate) fn reached_homeserver(&self, server: &ServerName, cargo: Cargo) {
        if let Some(origin) = cargo.origin {
            self.at_homeservers().insert((server.clone(), origin, cargo.txn_id));
        }
    }

    /// Whether the homeserver of `server` itself has said 200 to `cargo`. What it takes it may drop, as without a node.
    pub(crate) fn is_at_homeserver(&self, server: &ServerName, cargo: &Cargo) -> bool {
        let Some(origin) = cargo.origin.clone() else { return false };
        self.at_homeservers().contains(&(server.clone(), origin, cargo.txn_id.clone()))
    }

    fn at_homeservers(&self) -> MutexGuard<'_, BTreeSet<(ServerName, ServerName, String)>> {
        self.at_homeservers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what a request carries, if it is a transaction or a deposit.
    pub(crate) fn cargo(&self, request: &Request<Bytes>) -> Option<Cargo> {
        if request.method() != Method::PUT {
            return None;
        }
        let path = request.uri().path();
        let (txn_id, destination) = match path.strip_prefix(SEND_RELAY) {
            Some(rest) => {
                let (txn_id, user_id) = rest.split_once('/')?;
                let user_id = unescape_path_segment(user_id)?;
                (txn_id, Some(user_id.split_once(':')?.1.parse().ok()?))
            }
            None => (path.strip_prefix(SEND)?, None),
        };
        let body: Value = serde_json::from_slice(request.body()).ok()?;
        let origin = body["origin"].as_str().and_then(|origin| origin.parse().ok());
        let events = [&body["pdus"], &body[CAPSULE_MEMBER]["pdus"]].into_iter();
        let events = events.filter_map(Value::as_array).flatten();
        let messages = body["edus"].as_array().into_iter().flatten().filter_map(message);
        Some(Cargo {
            destination,
            origin,
            txn_id: unescape_path_segment(txn_id)?,
            events: events.filter_map(|pdu| self.id(pdu)).collect(),
            messages: messages.collect(),
        })
    }

    fn id(&self, pdu: &Value) -> Option<String> {
        let version = self.versions.get(pdu["room_id"].as_str()?)?;
        event_id(pdu.to_string().as_bytes(), *version).ok()
    }

    /// Somebody said 200 to `cargo` for `destination`; `is_kept` says that the events are there until they are delivered.
    pub(crate) fn took(&self, destination: &ServerName, cargo: Cargo, is_kept: bool) {
        let is_direct = cargo.destination.is_none();
        let Some(origin) = cargo.origin else { return };
        let is_kept = is_kept || (!is_direct && self.accountable.contains(&origin));
        let mut taken = self.taken();
        let taken = taken.entry(destination.clone()).or_default();
        taken.transactions.insert((origin.clone(), cargo.txn_id));
        if is_kept {
            taken.events.extend(cargo.events);
        }
        if is_kept || is_direct {
            let messages = cargo.messages.into_iter().map(|text| (origin.clone(), text));
            taken.messages.extend(messages);
        }
    }

    pub(crate) fn for_server(&self, destination: &ServerName) -> Taken {
        self.taken().get(destination).cloned().unwrap_or_default()
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<ServerName, Taken>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The text of a message to devices.
pub(crate) fn message(edu: &Value) -> Option<String> {
    let users = edu["content"]["messages"].as_object()?;
    let devices = users.values().next()?.as_object()?;
    devices.values().next()?["text"].as_str().map(str::to_owned)
}
