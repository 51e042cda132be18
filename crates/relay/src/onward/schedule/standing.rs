//! What is known of one destination for which mail waits.

use std::time::Duration;

use restante_federation_proto::ServerName;
use tokio::time::Instant;

/// Between the beginnings of two visits to one destination, whatever life it shows: it may call a hundred times a second and take
/// nothing. It doubles with each visit that a sign of life brought forward in vain.
pub(super) const SAME_APART: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Standing {
    pub(super) due: Instant,
    pub(super) failures: u32,
    /// Visits in vain since the last that succeeded that a sign of life brought forward.
    pub(super) early: u32,
    /// When it was called last.
    pub(super) called_at: Option<Instant>,
    pub(super) call: Calling,
    pub(super) outlook: Outlook,
    /// The next visit begins behind this origin, so that what one origin sends does not hold up the others'.
    pub(super) turn: Option<ServerName>,
    /// Whether its turn at its target has come.
    pub(super) admitted: Admitted,
}

/// What is expected of the next visit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outlook {
    /// Nothing is known.
    New,
    /// It answers, and what waits rests.
    Rests,
    /// It was called in vain.
    InVain,
    /// It was called in vain, and has shown life since.
    Heard,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Calling {
    No,
    /// A visit is under way; what has happened since it began.
    Yes {
        heard: bool,
        more: bool,
        /// Whether it counts as one of those in vain.
        is_in_vain: bool,
        /// Whether a sign of life brought it forward.
        is_early: bool,
    },
}

/// Whether a visit has waited for its turn among all that lead to its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admitted {
    Yes,
    No,
}

impl Standing {
    /// Of a destination that was not called yet.
    pub(super) fn new(due: Instant) -> Self {
        Self {
            due,
            failures: 0,
            early: 0,
            called_at: None,
            call: Calling::No,
            outlook: Outlook::New,
            turn: None,
            admitted: Admitted::No,
        }
    }

    /// When it may be called again at the earliest, whatever happens.
    pub(super) fn soonest(&self, now: Instant) -> Instant {
        let apart = SAME_APART.saturating_mul(1 << self.early.min(12));
        self.called_at.map_or(now, |at| now.max(at + apart))
    }

    pub(super) fn answered(&mut self, due: Instant, turn: Option<ServerName>) -> Instant {
        self.failures = 0;
        self.early = 0;
        self.turn = turn;
        self.outlook = Outlook::Rests;
        due
    }
}
