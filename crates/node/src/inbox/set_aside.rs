//! Puts events into the backlog of their room: what waits for a gap to close, what the homeserver dropped, and what
//! can't be delivered in its origin's name.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use restante_federation_proto::ServerName;
use restante_relay_api::Capsule;
use restante_sqlite::StoreError;

use super::Inbox;
use super::delivery::named;
use super::mail::{Mail, Standing};
use super::readiness::RoomEvent;
use super::rewrap::{fate_of_dropped, fate_of_keyless};
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
        let enclosed = self.enclosed(&envelope.capsule).await?;
        let fate = Fate::Waits { attempts: 0, due_at: self.now() };
        let chosen = enclosed.iter().chain(pdus).filter(|pdu| aside.contains(&pdu.room_id));
        let events = chosen.map(|pdu| Aside {
            pdu: pdu.clone(),
            origin: origin.clone(),
            is_proven: envelope.proof.is_some(),
            fate: fate.clone(),
        });
        self.hold(events.collect()).await?;
        self.hold_enclosed_since((envelope.id, origin), &envelope.capsule, aside).await
    }

    /// Another copy of mail that is here came with a capsule: its events join those of the mail that were set aside
    /// already. Durable on return.
    pub(super) async fn enclose_later(&self, copy: &Mail) -> Result<(), StoreError> {
        if copy.standing != Standing::Waiting || copy.extras.is_empty() {
            return Ok(());
        }
        let events = named(&self.pdus_of(&copy.content).await?);
        let aside = backlog_rows::known(self.database(), events).await?;
        let rooms = aside.into_iter().map(|(room_id, _)| room_id).collect();
        self.hold_enclosed(&copy.key.origin, &copy.extras, &rooms).await
    }

    /// Keeps what a capsule has of these rooms.
    async fn hold_enclosed(
        &self,
        origin: &ServerName,
        capsule: &Bytes,
        rooms: &BTreeSet<String>,
    ) -> Result<(), StoreError> {
        if rooms.is_empty() {
            return Ok(());
        }
        let events = self.enclosed_to_hold(origin, capsule, rooms).await?;
        if events.is_empty() {
            return Ok(());
        }
        self.hold(events).await.map(drop)
    }

    /// What a capsule has of these rooms, to be held; its origin's node vouches for it.
    async fn enclosed_to_hold(
        &self,
        origin: &ServerName,
        capsule: &Bytes,
        rooms: &BTreeSet<String>,
    ) -> Result<Vec<Aside>, StoreError> {
        let fate = Fate::Waits { attempts: 0, due_at: self.now() };
        let enclosed = self.enclosed(capsule).await?.into_iter();
        let events = enclosed.filter(|pdu| rooms.contains(&pdu.room_id)).map(|pdu| Aside {
            pdu,
            origin: origin.clone(),
            is_proven: true,
            fate: fate.clone(),
        });
        Ok(events.collect())
    }

    /// The same with the capsule that another copy brought to an envelope after it was read with `capsule`. Comes after
    /// the envelope's events are held: whoever adds a capsule looks for them then.
    async fn hold_enclosed_since(
        &self,
        (id, origin): (i64, &ServerName),
        capsule: &Bytes,
        rooms: &BTreeSet<String>,
    ) -> Result<(), StoreError> {
        let contents = rows::contents(self.database(), id).await?;
        match contents {
            Some((_, now)) if now != *capsule => self.hold_enclosed(origin, &now, rooms).await,
            _ => Ok(()),
        }
    }

    /// The events in an envelope's capsule.
    pub(super) async fn enclosed(&self, capsule: &Bytes) -> Result<Vec<Pdu>, StoreError> {
        if capsule.is_empty() {
            return Ok(Vec::new());
        }
        let Ok(capsule) = Capsule::parse(capsule) else { return Ok(Vec::new()) };
        let transaction = Transaction::of(capsule.pdus().iter().cloned());
        // Rooms whose version is not known are not those that wait.
        let versions = rooms::versions(self.database(), transaction.rooms()).await?;
        Ok(transaction.pdus(&versions))
    }

    /// The homeserver took an envelope and did not store this event of it: it is delivered again on its own, behind what
    /// the envelope's capsule has of its room, or parked if it never `may_be_taken`. While the origin could be reached
    /// the homeserver was left to fetch the capsule's events itself.
    pub(super) async fn set_dropped_aside(
        &self,
        (id, origin): (i64, ServerName),
        event: &RoomEvent,
        reason: &str,
        may_be_taken: bool,
    ) -> Result<(), StoreError> {
        let Some((content, capsule)) = rows::contents(self.database(), id).await? else {
            return Ok(());
        };
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
        let aside = Aside { pdu, origin: origin.clone(), is_proven: true, fate };
        if !may_be_taken {
            return self.hold(vec![aside]).await.map(drop);
        }
        let rooms = BTreeSet::from([room_id.clone()]);
        let mut events = self.enclosed_to_hold(&origin, &capsule, &rooms).await?;
        events.push(aside);
        self.hold(events).await?;
        self.hold_enclosed_since((id, &origin), &capsule, &rooms).await
    }

    /// The homeserver refused these events of an envelope, with its words.
    pub(super) async fn keep_refused(
        &self,
        origin: &ServerName,
        pdus: &[Pdu],
        refused: &BTreeMap<String, String>,
    ) -> Result<(), StoreError> {
        let mut events = Vec::new();
        for pdu in pdus {
            let Some(error) = pdu.event_id.as_ref().and_then(|id| refused.get(id)) else {
                continue;
            };
            let reason = format!("the homeserver refused it: {error}");
            let fate = if self.may_lack_key_of(pdu.sender.as_ref()).await {
                fate_of_keyless(1, self.now())
            } else {
                Fate::Parked(reason.clone())
            };
            tracing::warn!(%origin, room_id = pdu.room_id, event_id = pdu.event_id, reason, "an event was refused");
            let (pdu, origin) = (pdu.clone(), origin.clone());
            events.push(Aside { pdu, origin, is_proven: true, fate });
        }
        if events.is_empty() {
            return Ok(());
        }
        self.hold(events).await.map(drop)
    }

    /// Whether the homeserver may have refused what this server sent for want of a key: it has its keys from this node,
    /// which has none, and does not say what it could not check from what is wrong.
    pub(super) async fn may_lack_key_of(&self, sender: Option<&ServerName>) -> bool {
        match sender {
            Some(sender) if sender != self.site().server_name() => {
                self.site().keys.believed(sender).await.is_none()
            }
            _ => false,
        }
    }

    /// Keeps events in the backlog; how many were not there before.
    pub(super) async fn hold(&self, events: Vec<Aside>) -> Result<usize, StoreError> {
        let rooms: BTreeSet<String> =
            events.iter().map(|aside| aside.pdu.room_id.clone()).collect();
        let kept = backlog_rows::hold(self.database(), events, self.now()).await?;
        if !kept.replaced.is_empty() {
            self.site().bells.receipts.notify_one();
        }
        let now = self.elapsed();
        let mut state = self.state();
        kept.added.iter().for_each(|share| state.take_for_backlog(share));
        kept.replaced.iter().for_each(|share| state.give_back(share));
        rooms.iter().for_each(|room_id| state.backlog.added(room_id, now));
        drop(state);
        self.shared.backlog_due.notify_one();
        Ok(kept.added.len())
    }

    /// Notes what `origin` sent straight to the homeserver, as far as the rooms are known.
    pub(crate) async fn note_direct(
        &self,
        origin: &ServerName,
        content: &Bytes,
    ) -> Result<(), StoreError> {
        let transaction = Transaction::parse(content);
        let versions = rooms::versions(self.database(), transaction.rooms()).await?;
        self.note_from(origin, &transaction.pdus(&versions)).await;
        Ok(())
    }

    /// The PDUs in `content`, with the ids of those whose rooms are known.
    pub(super) async fn pdus_of(&self, content: &Bytes) -> Result<Vec<Pdu>, StoreError> {
        let transaction = Transaction::parse(content);
        let versions = rooms::versions(self.database(), transaction.rooms()).await?;
        Ok(transaction.pdus(&versions))
    }

    /// The envelope's PDUs with their ids; inner error when the homeserver can't be asked.
    pub(super) async fn pdus(
        &self,
        content: &Bytes,
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
