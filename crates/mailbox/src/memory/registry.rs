//! Registrations and invites in memory.

use std::collections::BTreeMap;
use std::ops::Bound;

use async_trait::async_trait;
use restante_federation_proto::{ServerName, Timestamp};

use super::{MemoryStore, State};
use crate::registry::{check_invite, check_registration};
use crate::{
    AdmittedBy, INVITES_MAX, Invite, InviteHash, InviteId, InviteOutcome, Lapse, Lapsed, Left,
    LeftMail, OpenInvite, REGISTRATIONS_MAX, RegisterOutcome, Registered, Registration, Registry,
    Revoked, Selection, StoreError,
};

#[derive(Debug, Default)]
pub(super) struct Registers {
    registrations: BTreeMap<ServerName, Standing>,
    invites: BTreeMap<InviteId, Invite>,
    last_invite: u64,
}

/// A registration, and when its server called last.
#[derive(Debug)]
struct Standing {
    registration: Registration,
    called_at: Timestamp,
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

    fn has_lapsed(&self, recipient: &ServerName, lapse: &Lapse) -> bool {
        self.registrations.get(recipient).is_some_and(|standing| {
            standing.registration.admitted_by == AdmittedBy::Nobody
                && standing.called_at < lapse.called_before
        })
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
        let before = self.registers.registrations.get(&recipient);
        let before = before.map(|standing| standing.registration.admitted_by);
        let mut admitted_by = registration.admitted_by.max(before.unwrap_or_default());
        if before.is_none() && self.registers.count() >= REGISTRATIONS_MAX {
            return RegisterOutcome::TooMany;
        }
        if let Some(hash) = invite.filter(|_| before != Some(AdmittedBy::Operator)) {
            match self.registers.usable(hash, &recipient, now) {
                Some(id) => {
                    self.registers.invites.remove(&id);
                    admitted_by = AdmittedBy::Operator;
                }
                None if before.is_none() => return RegisterOutcome::InviteUnknownOrUsed,
                None => {}
            }
        }
        self.mailbox(&recipient, random, now);
        let registration = Registration { admitted_by, ..registration };
        let standing = Standing { registration, called_at: now };
        self.registers.registrations.insert(recipient, standing);
        RegisterOutcome::Accepted
    }

    fn lapse(&mut self, lapse: &Lapse, after: Option<&ServerName>, batch_max: usize) -> Lapsed {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let names = self.mailboxes.range::<ServerName, _>((start, Bound::Unbounded));
        let names: Vec<_> = names.map(|(name, _)| name.clone()).take(batch_max).collect();
        let mut lapsed = Lapsed { last: names.last().cloned(), ..Lapsed::default() };
        for name in names.into_iter().filter(|name| !lapse.spares(name)) {
            if self.registers.has_lapsed(&name, lapse) {
                self.registers.registrations.remove(&name);
                self.ahead.forget_all_of(&name);
                lapsed.registrations.push(name.clone());
            }
            let is_unused = self.registers.registered(&name) == Registered::No
                && self
                    .mailboxes
                    .get(&name)
                    .is_some_and(|mailbox| mailbox.is_unused(lapse.unused_before));
            if is_unused {
                self.mailboxes.remove(&name);
                lapsed.mailboxes.push(name);
            }
        }
        lapsed
    }
}

#[async_trait]
impl Registry for MemoryStore {
    async fn registration(
        &self,
        recipient: &ServerName,
    ) -> Result<Option<Registration>, StoreError> {
        let state = self.state();
        let standing = state.registers.registrations.get(recipient);
        Ok(standing.map(|standing| standing.registration.clone()))
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
        state.ahead.forget_all_of(recipient);
        if mail == LeftMail::Keep {
            return Ok(Left::default());
        }
        let dropped = state.drop_mail(recipient, &Selection::All, now);
        if let Some(mailbox) = state.mailboxes.get_mut(recipient) {
            mailbox.give_up();
        }
        Ok(Left { dropped })
    }

    async fn note_call(&self, recipient: &ServerName, now: Timestamp) -> Result<(), StoreError> {
        if let Some(standing) = self.state().registers.registrations.get_mut(recipient) {
            standing.called_at = standing.called_at.max(now);
        }
        Ok(())
    }

    async fn lapse(
        &self,
        lapse: &Lapse,
        after: Option<&ServerName>,
        batch_max: usize,
    ) -> Result<Lapsed, StoreError> {
        Ok(self.state().lapse(lapse, after, batch_max))
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
