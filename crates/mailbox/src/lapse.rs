//! What becomes of registrations that nobody renews, and of mailboxes that nobody needs.

use std::sync::Arc;

use restante_federation_proto::{ServerGlob, ServerName, Timestamp};

/// By whose word a server is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub enum AdmittedBy {
    /// Nobody's: the relay was open when it came, and it may come again at any time.
    #[default]
    Nobody,
    /// The operator's: it is listed, or it had an invite, which is used up.
    Operator,
}

/// What has had its time.
#[derive(Debug, Clone)]
pub struct Lapse {
    /// A registration by nobody's word lapses if its server called last before this.
    pub called_before: Timestamp,
    /// A mailbox is not needed any more if its last mail came, and its last loss is from, before this. Until then its ids have
    /// to go on where they were: whoever collects from it may have a cursor there.
    pub unused_before: Timestamp,
    /// The time.
    pub now: Timestamp,
    /// Servers of which nothing lapses.
    pub spared: Arc<[ServerGlob]>,
}

impl Lapse {
    pub(crate) fn spares(&self, server: &ServerName) -> bool {
        self.spared.iter().any(|pattern| pattern.matches(server))
    }
}

/// What one step of lapsing did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lapsed {
    /// Whose registrations ended.
    pub registrations: Vec<ServerName>,
    /// Whose mailboxes are gone.
    pub mailboxes: Vec<ServerName>,
    /// The last mailbox that was looked at; the next step goes on after it. `None` after the last one of all.
    pub last: Option<ServerName>,
}
