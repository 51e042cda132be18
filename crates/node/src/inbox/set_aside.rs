//! Puts events into the backlog of their room: what waits for a gap to close, what the homeserver dropped, and what
//! can't be delivered in its origin's name.

use std::collections::{BTreeMap, BTreeSet};

use restante_federation_proto::ServerName;
use restante_relay_api::Capsule;
use restante_sqlite::StoreError;

use super::Inbox;
use super::readiness::RoomEvent;
use super::rewrap::fate_of_dropped;
use super::transaction::{Pdu, Transaction};
use crate::homeserver::Unavailable;
use crate::store::backlog::{self as backlog_rows, Aside, Fate};
use crate::store::inbox::{self as rows, Envelope};
use crate::store::rooms;

impl Inbox {
    /// Keeps the envelope's events of `aside` apart, behind those of its capsule in the same rooms. Durable on return.
    pub(super) async fn set_aside(
        &self,
        origin: &ServerName,
        envelope: &Envelope,
        pdus: &[Pdu],
        aside: &BTreeSet<String>,
    ) -> Result<(), StoreError> {
        if aside.is_empty() {
            return Ok(());
        }
        let enclosed = self.enclosed(envelope).await?;
        let fate = Fate::Waits { attempts: 0, due_at: self.now() };
        let chosen = enclosed.iter().chain(pdus).filter(|pdu| aside.contains(&pdu.room_id));
        let events = chosen.map(|pdu| Aside {
            pdu: pdu.clone(),
            origin: origin.clone(),
            is_proven: envelope.proof.is_some(),
            fate: fate.clone(),
        });
        self.hold(events.collect()).await
    }

    /// The events in the envelope's capsule.
    pub(super) async fn enclosed(&self, envelope: &Envelope) -> Result<Vec<Pdu>, StoreError> {
        if envelope.capsule.is_empty() {
            return Ok(Vec::new());
        }
        let Ok(capsule) = Capsule::parse(&envelope.capsule) else { return Ok(Vec::new()) };
        let transaction = Transaction::of(capsule.pdus().iter().cloned());
        // Rooms whose version is not known are not those that wait.
        let versions = rooms::versions(self.database(), transaction.rooms()).await?;
        Ok(transaction.pdus(&versions))
    }

    /// The homeserver took an envelope and did not store this event of it: it is delivered again on its own, or
    /// parked if it never `may_be_taken`.
    pub(super) async fn set_dropped_aside(
        &self,
        (id, origin): (i64, ServerName),
        event: &RoomEvent,
        reason: &str,
        may_be_taken: bool,
    ) -> Result<(), StoreError> {
        let Some(content) = rows::content(self.database(), id).await? else { return Ok(()) };
        let transaction = Transaction::parse(&content);
        let versions = rooms::versions(self.database(), transaction.rooms()).await?;
        let (room_id, event_id) = event;
        let is_it = |pdu: &Pdu| pdu.room_id == *room_id && pdu.event_id.as_ref() == Some(event_id);
        let Some(pdu) = transaction.pdus(&versions).into_iter().find(is_it) else { return Ok(()) };
        let fate = if may_be_taken {
            fate_of_dropped(1, reason.to_owned(), self.now())
        } else {
            Fate::Parked(reason.to_owned())
        };
        tracing::warn!(%origin, room_id, event_id, reason, "an event was delivered and not stored");
        self.hold(vec![Aside { pdu, origin, is_proven: true, fate }]).await
    }

    /// The homeserver refused these events of an envelope, with its words.
    pub(super) async fn park_refused(
        &self,
        origin: &ServerName,
        pdus: &[Pdu],
        refused: &BTreeMap<String, String>,
    ) -> Result<(), StoreError> {
        let events = pdus.iter().filter_map(|pdu| {
            let error = refused.get(pdu.event_id.as_ref()?)?;
            Some(Aside {
                pdu: pdu.clone(),
                origin: origin.clone(),
                is_proven: true,
                fate: Fate::Parked(format!("the homeserver refused it: {error}")),
            })
        });
        let events: Vec<Aside> = events.collect();
        if events.is_empty() {
            return Ok(());
        }
        tracing::warn!(%origin, count = events.len(), "the homeserver refused events; they are parked");
        self.hold(events).await
    }

    pub(super) async fn hold(&self, events: Vec<Aside>) -> Result<(), StoreError> {
        let rooms: BTreeSet<String> =
            events.iter().map(|aside| aside.pdu.room_id.clone()).collect();
        let kept = backlog_rows::hold(self.database(), events, self.now()).await?;
        let now = self.elapsed();
        let mut state = self.state();
        kept.added.iter().for_each(|share| state.take_for_backlog(share));
        kept.replaced.iter().for_each(|share| state.give_back(share));
        rooms.iter().for_each(|room_id| state.backlog.added(room_id, now));
        drop(state);
        self.shared.backlog_due.notify_one();
        Ok(())
    }

    /// Notes what `origin` sent straight to the homeserver, as far as the rooms are known.
    pub(crate) async fn note_direct(
        &self,
        origin: &ServerName,
        content: &bytes::Bytes,
    ) -> Result<(), StoreError> {
        let transaction = Transaction::parse(content);
        let versions = rooms::versions(self.database(), transaction.rooms()).await?;
        self.note_from(origin, &transaction.pdus(&versions)).await;
        Ok(())
    }

    /// The envelope's PDUs with their ids; inner error when the homeserver can't be asked.
    pub(super) async fn pdus(
        &self,
        content: &bytes::Bytes,
    ) -> Result<Result<Vec<Pdu>, Unavailable>, StoreError> {
        let transaction = Transaction::parse(content);
        let wanted = transaction.rooms();
        let mut versions = rooms::versions(self.database(), wanted.clone()).await?;
        for room_id in wanted {
            if versions.contains_key(&room_id) {
                continue;
            }
            match self.site().homeserver.room_version(&room_id).await {
                Ok(Some(version)) => {
                    rooms::remember(self.database(), room_id.clone(), version.clone()).await?;
                    versions.insert(room_id, version);
                }
                Ok(None) => {}
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(transaction.pdus(&versions)))
    }
}
