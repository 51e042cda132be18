//! Losses: mail that its recipient never got, counted by origin and reason.

use restante_federation_proto::{ServerName, Timestamp};

use crate::Full;

/// Origins of each kind that a mailbox counts apart; the others are summed up. A page of the answer to a collect
/// names them all, and strangers with many names can't make it longer.
pub const LOSS_ORIGINS_MAX: usize = 100;

/// How mail was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum LossKind {
    /// Turned away: the mailbox was full.
    MailboxFull = 0,
    /// Turned away: the origin's share of the mailbox was full.
    ShareFull = 1,
    /// Turned away: the relay was full.
    RelayFull = 2,
    /// Nobody collected it in time.
    Expired = 3,
    /// Removed by the operator.
    Dropped = 4,
}

impl LossKind {
    /// All kinds.
    pub const ALL: [Self; 5] =
        [Self::MailboxFull, Self::ShareFull, Self::RelayFull, Self::Expired, Self::Dropped];

    /// The kind that a backend wrote as `number`.
    pub(crate) fn of(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as i64 == number)
    }
}

impl From<Full> for LossKind {
    fn from(full: Full) -> Self {
        match full {
            Full::Mailbox => Self::MailboxFull,
            Full::Share => Self::ShareFull,
            Full::Relay => Self::RelayFull,
        }
    }
}

/// What one origin's mail came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// How it was lost.
    pub kind: LossKind,
    /// Whose mail; `None` sums up those beyond [`LOSS_ORIGINS_MAX`].
    pub origin: Option<ServerName>,
    /// Envelopes. Mail that was turned away is counted as often as it was tried.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the first was lost.
    pub since: Timestamp,
    /// When the last was lost; later than every loss of the mailbox before it, and so up to some milliseconds ahead when many are
    /// lost at once.
    pub until: Timestamp,
}

/// The `until` of a loss at `now` in a mailbox whose last one bears `last`.
pub(crate) fn until(now: Timestamp, last: Option<Timestamp>) -> Timestamp {
    let next = last.map(|last| last.after(std::time::Duration::from_millis(1)));
    next.map_or(now, |next| next.max(now))
}
