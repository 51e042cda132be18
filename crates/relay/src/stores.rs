//! One store, by each of the traits that a relay asks it by.

use std::sync::Arc;

use restante_mailbox::{Accounts, Custody, MailboxStore, OnwardMail, Registry, Upkeep};

/// The same store five times. A test may put a double in one of the places.
#[derive(Clone)]
pub struct Stores {
    /// Mail.
    pub mail: Arc<dyn MailboxStore>,
    /// What became of mail.
    pub accounts: Arc<dyn Accounts>,
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
    pub fn of<S>(store: Arc<S>) -> Self
    where
        S: MailboxStore + Accounts + Registry + Custody + Upkeep + OnwardMail,
    {
        Self {
            mail: store.clone(),
            accounts: store.clone(),
            registry: store.clone(),
            custody: store.clone(),
            upkeep: store.clone(),
            onward: store,
        }
    }
}
