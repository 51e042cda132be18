//! Looks for what the homeserver took, until it is stored or known to be dropped.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Inbox;
use super::confirmations::{Finished, Look};
use super::delivery::finished;
use super::readiness::RoomEvent;
use super::window::NotFound;
use crate::homeserver::Presence;
use crate::store::inbox::{self as rows, Settled};

pub(super) async fn run(inbox: &Inbox, shutdown: &CancellationToken) {
    loop {
        let look = inbox.state().confirmations.next_look();
        let Some(look) = look else {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = inbox.shared.looks_due.notified() => continue,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = inbox.shared.looks_due.notified() => {}
            () = tokio::time::sleep(inbox.until(&look)) => inbox.look(look).await,
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
        for envelope in finished {
            self.finish(envelope).await;
        }
        self.state().progressed.insert(room_id.clone());
        self.shared.mail_due.notify_one();
    }

    /// What is finished by giving the event up; `None` while it may still come.
    async fn not_found(&self, event: &RoomEvent) -> Option<Vec<Finished>> {
        let now = self.elapsed();
        if self.state().confirmations.not_found(event, now) == NotFound::MayCome {
            return None;
        }
        let reason = match self.site().homeserver.event(&event.1).await {
            Ok(Presence::Present) => "the homeserver rejected it, or has it without its state",
            Ok(Presence::Absent | Presence::NotInRoom) => {
                "the homeserver took it and did not store it"
            }
            Ok(Presence::Incomplete) | Err(_) => {
                self.state().confirmations.not_answered(&event.0, now);
                return None;
            }
        };
        Some(self.state().confirmations.given_up(event, reason, now))
    }

    async fn finish(&self, envelope: Finished) {
        let Finished { id, origin, failures } = envelope;
        let settled = finished(&failures);
        if let Settled::Parked(reason) = &settled {
            tracing::warn!(%origin, reason, "mail was delivered and not stored; it is parked");
        }
        let is_gone = settled == Settled::Confirmed;
        let row = (id, origin.clone(), None);
        match rows::settle(self.database(), row, settled, self.now()).await {
            Ok(bytes) if is_gone => self.state().confirmed(&origin, bytes),
            Ok(_) => {}
            // The row says that it was delivered, and is looked for again after a restart.
            Err(error) => tracing::error!(%origin, %error, "a confirmation can't be kept"),
        }
    }
}
