//! The witness: events that the own homeserver holds speak for a key that nobody else vouches for.
//!
//! The homeserver checked the signature of every event when it took it, so that whoever holds the key of such a
//! signature is that server. [`leads`] and [`judgement`] decide purely which events to ask for and what they say,
//! [`memory`] how often; the rest asks.

mod judgement;
mod leads;
mod memory;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use restante_federation_proto::{KeyDocument, RoomVersion, ServerName};
use tokio::time::{Instant, timeout};

use crate::site::Site;
use crate::store::rooms;

use judgement::{HeldEvent, Judgement, judgement, speaks_for};
use leads::{Lead, leads};
use memory::{Memory, Subject};

/// One search, its wait for the one before it included; the mail waits for it.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Events of one room that are asked for at once: enough to reach back to one of the server in a lively room.
const BACKFILL_MAX: usize = 50;

/// What came of a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Testimony {
    /// The document is believed.
    Believed,
    /// It is not; why.
    NotBelieved(String),
}

/// Finds events that speak for a key document. One search at a time.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    searching: tokio::sync::Mutex<()>,
    memory: Mutex<Memory>,
}

impl Witness {
    /// Looks for an event of `document`'s server that the homeserver holds and that a verify key of `document`
    /// signed, in the rooms that `content` (a transaction in that server's name) speaks of; believes `document`
    /// if the newest one found says so.
    pub(crate) async fn hear(
        &self,
        site: &Site,
        document: &KeyDocument,
        content: &[u8],
    ) -> Testimony {
        timeout(SEARCH_TIMEOUT, self.search(site, document, content)).await.unwrap_or_else(|_| {
            not_believed("the homeserver was too slow to be asked for events of it")
        })
    }

    async fn search(&self, site: &Site, document: &KeyDocument, content: &[u8]) -> Testimony {
        let server = document.server_name();
        let leads = leads(content, server);
        if leads.is_empty() {
            return not_believed("no event came with it whose room could be searched");
        }
        let _searching = self.searching.lock().await;
        let believed = site.keys.believed(server).await;
        if believed
            .is_some_and(|believed| believed.document.verify_keys() == document.verify_keys())
        {
            return Testimony::Believed;
        }
        let subject = Subject::of(document);
        let leads = match self.memory().begin(&subject, leads, Instant::now()) {
            Ok(leads) => leads,
            Err(reason) => return Testimony::NotBelieved(reason),
        };
        let mut events = Vec::new();
        for lead in &leads {
            match held(site, server, lead).await {
                Ok(held) => events.extend(held),
                Err(reason) => return Testimony::NotBelieved(reason),
            }
        }
        match judgement(document, &events) {
            Judgement::Proven => believe(site, document).await,
            Judgement::Contradicted(reason) => {
                self.memory().contradicted(subject, &reason, Instant::now());
                Testimony::NotBelieved(reason)
            }
            Judgement::Silent => {
                self.memory().silent(&subject, &leads, Instant::now());
                not_believed("the homeserver holds no event of it in the rooms of this mail")
            }
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn believe(site: &Site, document: &KeyDocument) -> Testimony {
    let server = document.server_name();
    if site.keys.offer_proven_by_event(document).await {
        tracing::info!(%server, "an event that the homeserver holds proves a key document; it is believed");
        return Testimony::Believed;
    }
    not_believed("stronger evidence speaks for another key")
}

/// The events of a lead's room that the homeserver holds: from the mail's predecessors back, and, if none of these is
/// the server's, those that authorize the mail's event: its sender's own join is among them.
async fn held(site: &Site, server: &ServerName, lead: &Lead) -> Result<Vec<HeldEvent>, String> {
    let Some(version) = room_version(site, &lead.room_id).await? else { return Ok(Vec::new()) };
    let homeserver = &site.homeserver;
    let held = |pdu| HeldEvent { pdu, room_id: lead.room_id.clone(), version };
    let backfilled = homeserver.backfill(&lead.room_id, &lead.prev_events, BACKFILL_MAX).await;
    let backfilled = backfilled.map_err(|error| error.to_string())?;
    let mut events: Vec<HeldEvent> = backfilled.into_iter().map(held).collect();
    if !events.iter().any(|event| speaks_for(event, server)) {
        for event_id in &lead.auth_events {
            let event = homeserver.held_event(event_id).await;
            events.extend(event.map_err(|error| error.to_string())?.map(held));
        }
    }
    Ok(events)
}

/// `None` for a room that the homeserver is not in, or whose version is unknown here.
async fn room_version(site: &Site, room_id: &str) -> Result<Option<RoomVersion>, String> {
    let known = rooms::versions(&site.database, BTreeSet::from([room_id.to_owned()])).await;
    let known = known.map_err(|error| error.to_string())?.remove(room_id);
    let version = match known {
        Some(version) => version,
        None => {
            let asked = site.homeserver.room_version(room_id).await;
            let Some(version) = asked.map_err(|error| error.to_string())? else { return Ok(None) };
            let remembered =
                rooms::remember(&site.database, room_id.to_owned(), version.clone()).await;
            remembered.map_err(|error| error.to_string())?;
            version
        }
    };
    Ok(RoomVersion::from_str(&version).ok())
}

fn not_believed(reason: &str) -> Testimony {
    Testimony::NotBelieved(reason.to_owned())
}
