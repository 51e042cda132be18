//! Changing who is registered: one at a time for each server, since what becomes of a registration is decided by what is there.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use restante_federation_proto::{ServerName, Timestamp};
use restante_mailbox::{InviteHash, LeftMail, RegisterOutcome, Registration, StoreError};
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

use super::Registrations;
use crate::signed_at::LastSigned;

/// Whose registration is being changed.
pub(super) type Turns = HashMap<ServerName, Arc<Turn<()>>>;

/// One who may change the registration of a server, and nobody else meanwhile.
pub(crate) struct Change<'a> {
    registrations: &'a Registrations,
    server: ServerName,
    turn: Option<OwnedMutexGuard<()>>,
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.turn = None;
        let mut turns = self.registrations.turns();
        if turns.get(&self.server).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(&self.server);
        }
    }
}

impl Registrations {
    /// Waits until nobody else changes the registration of `server`: what becomes of it is decided by what is there.
    pub(crate) async fn change(&self, server: &ServerName) -> Change<'_> {
        let turn = self.turns().entry(server.clone()).or_default().clone();
        let turn = Some(turn.lock_owned().await);
        Change { registrations: self, server: server.clone(), turn }
    }

    pub(super) fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Change<'_> {
    /// What was signed last by whom.
    pub(crate) fn last_signed(&self) -> &LastSigned {
        &self.registrations.last_signed
    }

    pub(crate) async fn register(
        &self,
        registration: Registration,
        invite: Option<InviteHash>,
        now: Timestamp,
    ) -> Result<RegisterOutcome, StoreError> {
        let server = registration.recipient.clone();
        let outcome = self.registrations.registry.register(registration, invite, now).await;
        // Also after an error: what the disk did not confirm may be there all the same.
        self.registrations.forget(&server);
        outcome
    }

    /// Returns how many envelopes were dropped.
    pub(crate) async fn leave(
        &self,
        server: &ServerName,
        mail: LeftMail,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        // First the registration alone, since dropping may take seconds in which nothing more is to be admitted.
        let mut left = self.registrations.registry.leave(server, LeftMail::Keep, now).await;
        self.registrations.forget(server);
        if left.is_ok() && mail == LeftMail::Drop {
            left = self.registrations.registry.leave(server, mail, now).await;
        }
        Ok(left?.dropped)
    }
}
