//! Registrations and invites in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;
use restante_federation_proto::{ServerName, Timestamp};

use super::{MemoryStore, State};
use crate::registry::{check_invite, check_registration};
use crate::{
    INVITES_MAX, Invite, InviteHash, InviteId, InviteOutcome, Left, LeftMail, OpenInvite,
    REGISTRATIONS_MAX, RegisterOutcome, Registered, Registration, Registry, Revoked, Selection,
    StoreError,
};

#[derive(Debug, Default)]
pub(super) struct Registers {
    registrations: BTreeMap<ServerName, Registration>,
    invites: BTreeMap<InviteId, Invite>,
    last_invite: u64,
}

impl Registers {
    pub(super) fn registered(&self, recipient: &ServerName) -> Registered {
        if self.registrations.contains_key(recipient) { Registered::Yes } else { Registered::No }
    }

    pub(super) fn count(&self) -> u64 {
        self.registrations.len() as u64
    }

    /// The invite with this hash, if `recipient` may use it.
    fn usable(&self, hash: InviteHash, recipient: &ServerName, now: Timestamp) -> Option<InviteId> {
        let found = self.invites.iter().find(|(_, invite)| invite.hash == hash);
        found.filter(|(_, invite)| invite.admits(recipient, now)).map(|(id, _)| *id)
    }

    fn invite(&mut self, invite: Invite) -> InviteOutcome {
        self.invites.retain(|_, other| other.expires_at > invite.created_at);
        if self.invites.len() as u64 >= INVITES_MAX {
            return InviteOutcome::TooMany;
        }
        self.last_invite += 1;
        let id = InviteId(self.last_invite);
        self.invites.insert(id, invite);
        InviteOutcome::Created(id)
    }
}

impl State {
    fn register(
        &mut self,
        registration: Registration,
        invite: Option<InviteHash>,
        now: Timestamp,
        random: u64,
    ) -> RegisterOutcome {
        let recipient = registration.recipient.clone();
        if self.registers.registered(&recipient) == Registered::No {
            if self.registers.count() >= REGISTRATIONS_MAX {
                return RegisterOutcome::TooMany;
            }
            if let Some(hash) = invite {
                let Some(id) = self.registers.usable(hash, &recipient, now) else {
                    return RegisterOutcome::InviteUnknownOrUsed;
                };
                self.registers.invites.remove(&id);
            }
        }
        self.mailbox(&recipient, random);
        self.registers.registrations.insert(recipient, registration);
        RegisterOutcome::Accepted
    }
}

#[async_trait]
impl Registry for MemoryStore {
    async fn registration(
        &self,
        recipient: &ServerName,
    ) -> Result<Option<Registration>, StoreError> {
        Ok(self.state().registers.registrations.get(recipient).cloned())
    }

    async fn register(
        &self,
        registration: Registration,
        invite: Option<InviteHash>,
        now: Timestamp,
    ) -> Result<RegisterOutcome, StoreError> {
        if let Some(refused) = check_registration(&registration) {
            return Ok(refused);
        }
        Ok(self.state().register(registration, invite, now, self.dice.number()))
    }

    async fn leave(
        &self,
        recipient: &ServerName,
        mail: LeftMail,
        now: Timestamp,
    ) -> Result<Left, StoreError> {
        let mut state = self.state();
        state.registers.registrations.remove(recipient);
        if mail == LeftMail::Keep {
            return Ok(Left::default());
        }
        let dropped = state.drop_mail(recipient, &Selection::All, now);
        if let Some(mailbox) = state.mailboxes.get_mut(recipient) {
            mailbox.forget_losses(Timestamp::from_millis(u64::MAX));
        }
        Ok(Left { dropped })
    }

    async fn invite(&self, invite: Invite) -> Result<InviteOutcome, StoreError> {
        if let Some(refused) = check_invite(&invite) {
            return Ok(refused);
        }
        Ok(self.state().registers.invite(invite))
    }

    async fn invites(&self) -> Result<Vec<OpenInvite>, StoreError> {
        let state = self.state();
        let open =
            |(id, invite): (&InviteId, &Invite)| OpenInvite { id: *id, invite: invite.clone() };
        Ok(state.registers.invites.iter().map(open).collect())
    }

    async fn revoke_invite(&self, id: InviteId) -> Result<Revoked, StoreError> {
        let revoked = self.state().registers.invites.remove(&id);
        Ok(if revoked.is_some() { Revoked::Yes } else { Revoked::NoSuchInvite })
    }
}
