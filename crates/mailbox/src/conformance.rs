//! The conformance suite: one list of checks that every backend passes.
//!
//! A backend's tests call [`run_all`] and [`histories::check`] with a way to make an empty store.
//! Checks panic when they fail, as tests do.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a check fails by panicking")]

mod acknowledge;
mod collect;
mod deposit;
mod expire;
mod fixtures;
pub mod histories;
pub(crate) mod model;
mod summary;
mod together;

use std::pin::Pin;
use std::sync::Arc;

use crate::{MailboxLimits, MailboxStore};

/// The store under test; checks share it among tasks.
pub type Store = Arc<dyn MailboxStore>;

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One sentence of the promise, and how to try it.
pub struct Check {
    /// The sentence.
    pub name: &'static str,
    /// The limits that the store is made with.
    pub limits: MailboxLimits,
    /// Tries an empty store.
    pub run: fn(Store) -> Running,
}

/// Runs every check, each on a store of its own from `make`.
pub async fn run_all(make: impl AsyncFn(MailboxLimits) -> Store) {
    for check in CHECKS {
        // Shown when the check fails, and only then.
        println!("conformance: {}", check.name);
        (check.run)(make(check.limits).await).await;
    }
}

const ROOMY: MailboxLimits = MailboxLimits { envelopes_max: 10_000, bytes_max: 64 << 20 };
const THREE_ENVELOPES: MailboxLimits = MailboxLimits { envelopes_max: 3, ..ROOMY };
const HUNDRED_BYTES: MailboxLimits = MailboxLimits { bytes_max: 100, ..ROOMY };

/// Everything that a store promises.
pub const CHECKS: &[Check] = &[
    check("a deposit is collected whole", ROOMY, |s| Box::pin(deposit::whole(s))),
    check("the same mail left again is stored once", ROOMY, |s| Box::pin(deposit::once(s))),
    check("a grown body under the same txn id is another envelope", ROOMY, |s| {
        Box::pin(deposit::grown(s))
    }),
    check("the same content from elsewhere, or for another, is other mail", ROOMY, |s| {
        Box::pin(deposit::other_mail(s))
    }),
    check("a mailbox that holds its envelopes refuses and loses nothing", THREE_ENVELOPES, |s| {
        Box::pin(deposit::too_many(s))
    }),
    check("a mailbox that holds its bytes refuses and loses nothing", HUNDRED_BYTES, |s| {
        Box::pin(deposit::too_large(s))
    }),
    check("a full mailbox still knows a duplicate", THREE_ENVELOPES, |s| {
        Box::pin(deposit::duplicate_when_full(s))
    }),
    check("a full mailbox hinders no other", THREE_ENVELOPES, |s| Box::pin(deposit::full_alone(s))),
    check("a refused first envelope creates no mailbox", HUNDRED_BYTES, |s| {
        Box::pin(deposit::refused_first(s))
    }),
    check("ids ascend from an offset that is random for each mailbox", ROOMY, |s| {
        Box::pin(deposit::random_offsets(s))
    }),
    check("envelopes come in the order of their deposit, whatever the clock says", ROOMY, |s| {
        Box::pin(collect::in_order(s))
    }),
    check("only envelopes after the cursor come", ROOMY, |s| Box::pin(collect::after(s))),
    check("a page holds as many envelopes as asked", ROOMY, |s| {
        Box::pin(collect::envelopes_max(s))
    }),
    check("a page holds as many bytes as asked, and at least one envelope", ROOMY, |s| {
        Box::pin(collect::bytes_max(s))
    }),
    check("pages in a row give each envelope once", ROOMY, |s| Box::pin(collect::pages(s))),
    check("collecting changes nothing", ROOMY, |s| Box::pin(collect::changes_nothing(s))),
    check("a mailbox that does not exist is empty", ROOMY, |s| Box::pin(collect::unknown(s))),
    check("an acknowledgement removes what it names", ROOMY, |s| Box::pin(acknowledge::named(s))),
    check("an acknowledgement touches no other mailbox", ROOMY, |s| {
        Box::pin(acknowledge::other_mailbox(s))
    }),
    check("an acknowledgement of other content removes nothing", ROOMY, |s| {
        Box::pin(acknowledge::other_content(s))
    }),
    check("acknowledging what is not there is no error", ROOMY, |s| {
        Box::pin(acknowledge::unknown(s))
    }),
    check("what was acknowledged is still known as a duplicate", ROOMY, |s| {
        Box::pin(acknowledge::remembered(s))
    }),
    check("an acknowledgement makes room", THREE_ENVELOPES, |s| {
        Box::pin(acknowledge::makes_room(s))
    }),
    check("ids are not given out again when the mailbox is empty", ROOMY, |s| {
        Box::pin(acknowledge::ids_stay_used(s))
    }),
    check("what was deposited before a time expires, and nothing later", ROOMY, |s| {
        Box::pin(expire::before(s))
    }),
    check("expiry goes in steps, oldest first, over all mailboxes", ROOMY, |s| {
        Box::pin(expire::in_steps(s))
    }),
    check("expired mail may be left anew under a later id", ROOMY, |s| {
        Box::pin(expire::left_anew(s))
    }),
    check("keys of acknowledged mail are forgotten at their time", ROOMY, |s| {
        Box::pin(expire::forgotten(s))
    }),
    check("depth tells count, bytes and the oldest", ROOMY, |s| Box::pin(summary::depth(s))),
    check("what leaves a mailbox is counted by the way it left", ROOMY, |s| {
        Box::pin(summary::totals(s))
    }),
    check("mailboxes are listed by name, page by page", ROOMY, |s| Box::pin(summary::listed(s))),
    check("an empty mailbox stays listed", ROOMY, |s| Box::pin(summary::empty_listed(s))),
    check("a healthy store says so", ROOMY, |s| Box::pin(summary::health(s))),
    check("deposits at once are all stored, in the order of their ids", ROOMY, |s| {
        Box::pin(together::deposits(s))
    }),
    check("the same mail left many times at once is stored once", ROOMY, |s| {
        Box::pin(together::same_mail(s))
    }),
    check("deposits at once never overfill a mailbox", THREE_ENVELOPES, |s| {
        Box::pin(together::overfull(s))
    }),
    check("a deposit that returned is in the next collect", ROOMY, |s| {
        Box::pin(together::seen_at_once(s))
    }),
];

const fn check(name: &'static str, limits: MailboxLimits, run: fn(Store) -> Running) -> Check {
    Check { name, limits, run }
}
