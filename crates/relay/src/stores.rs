//! One store, by each of the traits that a relay asks it by.

use std::sync::Arc;

use restante_mailbox::{Custody, MailboxStore, OnwardMail, Registry, Upkeep};

/// The same store five times. A test may put a double in one of the places.
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
    /// What is to be delivered onward.
    pub onward: Arc<dyn OnwardMail>,
}

impl Stores {
    /// All of `store`.
    pub fn of<S: MailboxStore + Registry + Custody + Upkeep + OnwardMail>(store: Arc<S>) -> Self {
        Self {
            mail: store.clone(),
            registry: store.clone(),
            custody: store.clone(),
            upkeep: store.clone(),
            onward: store,
        }
    }
}
