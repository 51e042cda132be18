//! Looks for what the homeserver took, until it is stored or known to be dropped.

use std::collections::BTreeSet;
use std::time::Duration;

use restante_federation_proto::{ServerName, Timestamp};
use restante_sqlite::StoreError;
use tokio_util::sync::CancellationToken;

use super::Inbox;
use super::confirmations::{Finished, Look};
use super::delivery::{named, sent};
use super::load::{Class, Weight};
use super::readiness::RoomEvent;
use super::transaction::Transaction;
use super::window::{Carrier, NotFound, Sent};
use crate::homeserver::Presence;
use crate::store::backlog;
use crate::store::inbox::{self as rows, Settled, Settling};
use crate::store::rooms;

pub(super) async fn run(inbox: &Inbox, shutdown: &CancellationToken) {
    loop {
        let look = inbox.state().confirmations.next_look();
        let Some(look) = look else {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = inbox.shared.looks_due.notified() => continue,
            }
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(inbox.until(&look)) => inbox.look(look).await,
            () = inbox.shared.looks_due.notified() => {}
        }
    }
}

impl Inbox {
    fn until(&self, look: &Look) -> Duration {
        look.due.since(self.elapsed())
    }

    async fn look(&self, look: Look) {
        let (room_id, event_id) = &look.event;
        let answer = self.site().homeserver.state_ids(room_id, event_id).await;
        let now = self.elapsed();
        let finished = match answer {
            Ok(Presence::Present) => self.state().confirmations.found(&look.event, now),
            Ok(Presence::NotInRoom) => self.state().confirmations.left(room_id, now),
            Ok(Presence::Absent) => match self.not_found(&look.event).await {
                Some(finished) => finished,
                None => return,
            },
            Ok(Presence::Incomplete) => {
                self.state().confirmations.not_answered(room_id, now);
                return;
            }
            Err(error) => {
                tracing::debug!(%error, "deliveries can't be confirmed now");
                self.state().confirmations.not_answered(room_id, now);
                return;
            }
        };
        for finished in finished {
            self.finish(finished).await;
        }
        self.progressed(room_id);
    }

    /// What is finished by giving the event up; `None` while it may still come.
    async fn not_found(&self, event: &RoomEvent) -> Option<Vec<Finished>> {
        let now = self.elapsed();
        if self.state().confirmations.not_found(event, now) == NotFound::MayCome {
            return None;
        }
        let (reason, may_be_taken) = match self.site().homeserver.event(&event.1).await {
            Ok(Presence::Present) => ("the homeserver rejected it", false),
            Ok(Presence::Absent | Presence::NotInRoom) => {
                ("the homeserver took it and did not store it", true)
            }
            Ok(Presence::Incomplete) | Err(_) => {
                self.state().confirmations.not_answered(&event.0, now);
                return None;
            }
        };
        let (mut kept, mut failed) = (Vec::new(), false);
        let carriers = self.state().confirmations.carriers(event);
        for (carrier, origin) in carriers {
            match self.keep_dropped(event, (carrier, origin), (reason, may_be_taken)).await {
                Ok(()) => kept.push(carrier),
                Err(error) if error.is_damage() => {
                    // It can't be read again either, and others wait behind it.
                    kept.push(carrier);
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(
                        error,
                        "what the homeserver dropped is damaged here, and lost; check the disk"
                    );
                }
                Err(error) => {
                    failed = true;
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(
                        error,
                        "what the homeserver dropped can't be kept for another attempt; it is tried again"
                    );
                }
            }
        }
        let mut state = self.state();
        let finished = state.confirmations.given_up(event, &kept, now);
        if failed {
            // What could not be kept is not finished.
            state.confirmations.not_answered(&event.0, now);
        }
        state.backlog.added(&event.0, now);
        drop(state);
        self.site().bells.receipts.notify_one();
        self.shared.backlog_due.notify_one();
        Some(finished)
    }

    /// Keeps what the homeserver dropped, for another attempt or parked, durably.
    async fn keep_dropped(
        &self,
        event: &RoomEvent,
        (carrier, origin): (Carrier, Option<ServerName>),
        (reason, may_be_taken): (&'static str, bool),
    ) -> Result<(), StoreError> {
        match (carrier, origin) {
            (Carrier::Backlog(id), _) if may_be_taken => {
                self.held_dropped(id, reason.to_owned()).await
            }
            (Carrier::Backlog(id), _) => {
                let parked = vec![(id, reason.to_owned())];
                backlog::park(self.database(), parked, self.now()).await
            }
            (Carrier::Envelope(id), Some(origin)) => {
                self.set_dropped_aside((id, origin), event, reason, may_be_taken).await
            }
            (Carrier::Envelope(_), None) => Ok(()),
        }
    }

    async fn finish(&self, finished: Finished) {
        let settled = match finished {
            Finished::Envelope { id, origin } => self.finish_envelope(id, origin).await,
            Finished::Held(id) => self.finish_held(id).await,
        };
        if let Err(error) = settled {
            // The row says that it was delivered, and is looked for again after a restart.
            tracing::error!(%error, "a confirmation can't be kept");
        }
    }

    pub(super) async fn finish_envelope(
        &self,
        id: i64,
        origin: ServerName,
    ) -> Result<(), StoreError> {
        let content = rows::content(self.database(), id).await?.unwrap_or_default();
        let events = named(&self.pdus_of(&content).await?);
        let row = Settling { id, origin: origin.clone(), place: None, events };
        let row = rows::settle(self.database(), row, Settled::Confirmed, self.now()).await?;
        tracing::info!(%origin, txn_id = row.txn_id, delivery.id = row.request_id.as_deref(), "confirmed");
        self.site().bells.receipts.notify_one();
        self.state().load.release(&origin, Class::Proven, Weight::of(row.bytes));
        Ok(())
    }

    async fn finish_held(&self, id: i64) -> Result<(), StoreError> {
        let confirmed = backlog::confirmed(self.database(), id, self.now()).await?;
        let Some(((room_id, event_id), share)) = confirmed else { return Ok(()) };
        self.site().bells.receipts.notify_one();
        self.state().give_back(&share);
        self.site().stand_in.forget(room_id, vec![event_id]).await
    }

    /// What was taken before a restart is looked for again, but for what is in the backlog.
    pub(super) async fn restore_unconfirmed(&self) -> Result<(), StoreError> {
        for (id, origin) in rows::delivered(self.database()).await? {
            let Some(content) = rows::content(self.database(), id).await? else { continue };
            let transaction = Transaction::parse(&content);
            let versions = rooms::versions(self.database(), transaction.rooms()).await?;
            let events = sent(id, transaction.pdus(&versions).into_iter());
            let named = |(room_id, sent): &(String, Sent)| (room_id.clone(), sent.event_id.clone());
            let named = events.iter().map(named).collect();
            let aside: BTreeSet<RoomEvent> =
                backlog::known(self.database(), named).await?.into_iter().collect();
            let is_open = |(room_id, sent): &(String, Sent)| {
                !aside.contains(&(room_id.clone(), sent.event_id.clone()))
            };
            let events: Vec<_> = events.into_iter().filter(is_open).collect();
            if events.is_empty() {
                self.finish_envelope(id, origin).await?;
            } else {
                self.state().confirmations.sent((id, origin), events, Timestamp::EPOCH);
            }
        }
        Ok(())
    }
}
