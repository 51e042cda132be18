//! What a history is forgiven: effects of calls that failed, and envelopes that were declared damaged.

use std::collections::BTreeMap;

use restante_federation_proto::ServerName;

/// What the answer 5xx says about the call's effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServerErrors {
    /// There was none. So a relay says, and so it is on a disk that works.
    #[default]
    HadNoEffect,
    /// Nobody knows: a disk that fails within a commit may have kept it.
    MayHaveHadEffect,
}

/// What a history is forgiven.
#[derive(Debug, Clone, Default)]
pub struct Allowance {
    /// What 5xx says.
    pub server_errors: ServerErrors,
    /// How many envelopes of a mailbox the relay has declared damaged: so many may be missing, or be there under a second id.
    pub damaged: BTreeMap<ServerName, u64>,
}

impl Allowance {
    pub(crate) fn may_have_had_effect(&self, status: u16) -> bool {
        status >= 500 && self.server_errors == ServerErrors::MayHaveHadEffect
    }

    /// Whether all that a relay should have written of this mailbox is written.
    pub(crate) fn trusts_every_write(&self, mailbox: &ServerName) -> bool {
        self.server_errors == ServerErrors::HadNoEffect && self.damaged_in(mailbox) == 0
    }

    pub(crate) fn damaged_in(&self, mailbox: &ServerName) -> u64 {
        self.damaged.get(mailbox).copied().unwrap_or(0)
    }
}
