//! The registry trait: who has asked to be served, and the invites that let servers in.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use restante_federation_proto::{ServerName, Timestamp};
use sha2::{Digest, Sha256};

use crate::{AdmittedBy, Lapse, Lapsed, StoreError};

/// Servers that may register. Whoever serves more has outgrown one database, and in an open relay strangers can fill no more
/// than this.
pub const REGISTRATIONS_MAX: u64 = if cfg!(test) { 200 } else { 20_000 };

/// Bytes of a registration's record and patterns. A record with fifty relays has 10 KB, a thousand patterns 20 KB.
pub const REGISTRATION_BYTES_MAX: usize = 64 * 1024;

/// Invites that wait at the same time: an operator writes them one by one.
pub const INVITES_MAX: u64 = 1000;

/// Bytes of an invite's note: one line.
pub const NOTE_BYTES_MAX: usize = 500;

/// A server's request to be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The server.
    pub recipient: ServerName,
    /// Its relay record, signed JSON as received.
    pub record: Bytes,
    /// Who may leave mail.
    pub senders: Senders,
    /// How long its mail is kept, if shorter than the relay's own time.
    pub time_to_live: Option<Duration>,
    /// When it registered.
    pub registered_at: Timestamp,
    /// By whose word.
    pub admitted_by: AdmittedBy,
    /// Whether its own mail is delivered onward from here.
    pub outgoing: Outgoing,
}

impl Registration {
    /// Bytes that [`REGISTRATION_BYTES_MAX`] bounds.
    pub fn bytes(&self) -> usize {
        let allowed = self.senders.allow.iter().flatten();
        let patterns = allowed.chain(&self.senders.block).map(String::len);
        self.record.len() + patterns.sum::<usize>()
    }
}

/// Whether a server may have its own mail delivered onward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Outgoing {
    /// Mail is kept for it, and that is all.
    #[default]
    No,
    /// It asked for it.
    Yes,
}

/// Patterns of server names; what they mean is for the relay to say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Senders {
    /// Those who may leave mail; `None` is anyone.
    pub allow: Option<Vec<String>>,
    /// Those who may not, even if allowed.
    pub block: Vec<String>,
}

/// SHA-256 of an invite's token. Only this is stored: who reads the database can't use an invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InviteHash(pub [u8; 32]);

impl InviteHash {
    /// Of a token as it stands in the invite's line.
    pub fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }
}

/// An invite's number, by which it is listed and revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InviteId(pub u64);

/// A token that admits one registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// Of the token.
    pub hash: InviteHash,
    /// The only server that may use it; `None` is any.
    pub server: Option<ServerName>,
    /// The operator's words.
    pub note: String,
    /// When it was written.
    pub created_at: Timestamp,
    /// From when on it is void.
    pub expires_at: Timestamp,
}

impl Invite {
    /// Whether `server` may use it.
    pub(crate) fn admits(&self, server: &ServerName, now: Timestamp) -> bool {
        self.expires_at > now && self.server.as_ref().is_none_or(|only| only == server)
    }
}

/// An invite that is not used yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenInvite {
    /// Its number.
    pub id: InviteId,
    /// What it says.
    pub invite: Invite,
}

/// What became of a registration. Only `Accepted` changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegisterOutcome {
    /// It stands, and its invite is used up.
    Accepted,
    /// No such invite: unknown, used, expired, revoked, or another server's.
    InviteUnknownOrUsed,
    /// [`REGISTRATIONS_MAX`] servers are registered.
    TooMany,
    /// It is larger than [`REGISTRATION_BYTES_MAX`].
    TooLarge,
}

/// What became of an invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InviteOutcome {
    /// It can be used.
    Created(InviteId),
    /// [`INVITES_MAX`] wait to be used: revoke some.
    TooMany,
    /// The note is longer than [`NOTE_BYTES_MAX`].
    NoteTooLong,
}

/// What becomes of the mail of a server that leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftMail {
    /// It is removed, and the losses forgotten.
    Drop,
    /// It is kept until it expires, for collecting.
    Keep,
}

/// What a server left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Left {
    /// Envelopes that were removed.
    pub dropped: u64,
}

/// Whether there was such an invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    /// It is void.
    Yes,
    /// No invite of that number waits.
    NoSuchInvite,
}

/// Who is served. Each call is one atomic step, durable when it returns, unless it says otherwise.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    /// The registration of `recipient`.
    async fn registration(
        &self,
        recipient: &ServerName,
    ) -> Result<Option<Registration>, StoreError>;

    /// Registers a server, or replaces its registration; creates its mailbox. With an invite, a server that is not
    /// registered uses it up in the same step; one that is needs none and uses none, so that a request whose answer got lost
    /// can be repeated. Whom an invite admitted, or the operator once, stays admitted by the operator until it leaves.
    async fn register(
        &self,
        registration: Registration,
        invite: Option<InviteHash>,
        now: Timestamp,
    ) -> Result<RegisterOutcome, StoreError>;

    /// Ends a registration. Removing mail then goes in steps, each of them counted: interrupted, what remains goes with the next
    /// call or expires. A server that is not registered may leave as well.
    async fn leave(
        &self,
        recipient: &ServerName,
        mail: LeftMail,
        now: Timestamp,
    ) -> Result<Left, StoreError>;

    /// Notes that a registered server has called at `now`. Of others nothing is noted.
    async fn note_call(&self, recipient: &ServerName, now: Timestamp) -> Result<(), StoreError>;

    /// Looks at up to `batch_max` mailboxes, in the order of their names, those after `after`. Ends registrations by nobody's
    /// word whose servers have not called; then removes mailboxes that hold no mail, whole or quarantined, no registration and no
    /// hold, and were not used for long, or whose owner has left for good. Mail is never removed. What was acknowledged is
    /// remembered all the same, and should the mailbox be needed again its ids begin at another random offset.
    async fn lapse(
        &self,
        lapse: &Lapse,
        after: Option<&ServerName>,
        batch_max: usize,
    ) -> Result<Lapsed, StoreError>;

    /// Keeps an invite. Expired ones make room for it.
    async fn invite(&self, invite: Invite) -> Result<InviteOutcome, StoreError>;

    /// Invites that are not used yet, in the order of their numbers.
    async fn invites(&self) -> Result<Vec<OpenInvite>, StoreError>;

    /// Makes an invite void.
    async fn revoke_invite(&self, id: InviteId) -> Result<Revoked, StoreError>;
}

/// Refuses what is too large to keep.
pub(crate) fn check_registration(registration: &Registration) -> Option<RegisterOutcome> {
    (registration.bytes() > REGISTRATION_BYTES_MAX).then_some(RegisterOutcome::TooLarge)
}

/// Refuses what is too large to keep.
pub(crate) fn check_invite(invite: &Invite) -> Option<InviteOutcome> {
    (invite.note.len() > NOTE_BYTES_MAX).then_some(InviteOutcome::NoteTooLong)
}
