//! One store, by each of the traits that a relay asks it by.

use std::sync::Arc;

use restante_mailbox::{Custody, MailboxStore, Registry, Upkeep};

/// The same store four times. A test may put a double in one of the places.
#[derive(Clone)]
pub struct Stores {
    /// Mail.
    pub mail: Arc<dyn MailboxStore>,
    /// Who is served.
    pub registry: Arc<dyn Registry>,
    /// What an operator may do with single mailboxes.
    pub custody: Arc<dyn Custody>,
    /// What an operator may do with all of it.
    pub upkeep: Arc<dyn Upkeep>,
}

impl Stores {
    /// All of `store`.
    pub fn of<S: MailboxStore + Registry + Custody + Upkeep>(store: Arc<S>) -> Self {
        Self { mail: store.clone(), registry: store.clone(), custody: store.clone(), upkeep: store }
    }
}
