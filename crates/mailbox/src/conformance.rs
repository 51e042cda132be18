//! The conformance suite: one list of checks that every backend passes.
//!
//! A backend's tests call [`run_all`] and [`histories::check`] with a way to make an empty store.
//! Checks panic when they fail, as tests do.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a check fails by panicking")]

mod accounts;
mod acknowledge;
mod collect;
mod custody;
mod deposit;
mod expire;
mod fixtures;
pub mod histories;
mod lapse;
mod losses;
pub(crate) mod model;
mod onward;
mod quotas;
mod registry;
mod summary;
mod together;

use std::pin::Pin;
use std::sync::Arc;

use crate::{Accounts, Custody, MailboxStore, OnwardMail, Registry, Upkeep};

/// All that a backend can do.
pub trait Backend: MailboxStore + Accounts + Registry + Custody + Upkeep + OnwardMail {}

impl<T: MailboxStore + Accounts + Registry + Custody + Upkeep + OnwardMail> Backend for T {}

/// The store under test; checks share it among tasks.
pub type Store = Arc<dyn Backend>;

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One sentence of the promise, and how to try it.
pub struct Check {
    /// The sentence.
    pub name: &'static str,
    /// Tries an empty store.
    pub run: fn(Store) -> Running,
}

/// Runs every check, each on a store of its own from `make`.
pub async fn run_all(make: impl AsyncFn() -> Store) {
    for check in CHECKS {
        // Shown when the check fails, and only then.
        println!("conformance: {}", check.name);
        (check.run)(make().await).await;
    }
}

/// Everything that a store promises.
pub const CHECKS: &[Check] = &[
    check("a deposit is collected whole", |s| Box::pin(deposit::whole(s))),
    check("the same mail left again is stored once", |s| Box::pin(deposit::once(s))),
    check("a grown body under the same txn id is another envelope", |s| {
        Box::pin(deposit::grown(s))
    }),
    check("the same content from elsewhere, or for another, is other mail", |s| {
        Box::pin(deposit::other_mail(s))
    }),
    check("a mailbox that holds its envelopes refuses and loses nothing", |s| {
        Box::pin(deposit::too_many(s))
    }),
    check("a mailbox that holds its bytes refuses and loses nothing", |s| {
        Box::pin(deposit::too_large(s))
    }),
    check("of mail that is left again it is said since when and until when it is held", |s| {
        Box::pin(deposit::left_again(s))
    }),
    check("mail past its time that is left again expires, counted, and is stored", |s| {
        Box::pin(deposit::past_its_time(s))
    }),
    check("mail of the moment that is left again past its time is no loss", |s| {
        Box::pin(deposit::of_the_moment_and_past_its_time(s))
    }),
    check("mail past its time makes room for itself when it is left again", |s| {
        Box::pin(deposit::past_its_time_when_full(s))
    }),
    check("in a held mailbox mail past its time stays, and is a duplicate", |s| {
        Box::pin(deposit::past_its_time_and_held(s))
    }),
    check("a full mailbox still knows a duplicate", |s| Box::pin(deposit::duplicate_when_full(s))),
    check("a full mailbox hinders no other", |s| Box::pin(deposit::full_alone(s))),
    check("a refused first envelope creates no mailbox", |s| Box::pin(deposit::refused_first(s))),
    check("ids ascend from an offset that is random for each mailbox", |s| {
        Box::pin(deposit::random_offsets(s))
    }),
    check("envelopes come in the order of their deposit, whatever the clock says", |s| {
        Box::pin(collect::in_order(s))
    }),
    check("only envelopes after the cursor come", |s| Box::pin(collect::after(s))),
    check("a page holds as many envelopes as asked", |s| Box::pin(collect::envelopes_max(s))),
    check("a page holds as many bytes as asked, and at least one envelope", |s| {
        Box::pin(collect::bytes_max(s))
    }),
    check("pages in a row give each envelope once", |s| Box::pin(collect::pages(s))),
    check("collecting changes nothing", |s| Box::pin(collect::changes_nothing(s))),
    check("a mailbox that does not exist is empty", |s| Box::pin(collect::unknown(s))),
    check("an acknowledgement removes what it names", |s| Box::pin(acknowledge::named(s))),
    check("an acknowledgement touches no other mailbox", |s| {
        Box::pin(acknowledge::other_mailbox(s))
    }),
    check("an acknowledgement of other content removes nothing", |s| {
        Box::pin(acknowledge::other_content(s))
    }),
    check("acknowledging what is not there is no error", |s| Box::pin(acknowledge::unknown(s))),
    check("what was acknowledged is still known as a duplicate", |s| {
        Box::pin(acknowledge::remembered(s))
    }),
    check("an acknowledgement makes room", |s| Box::pin(acknowledge::makes_room(s))),
    check("ids are not given out again when the mailbox is empty", |s| {
        Box::pin(acknowledge::ids_stay_used(s))
    }),
    check("mail is held, acknowledged or unknown by its name", |s| {
        Box::pin(accounts::whereabouts(s))
    }),
    check("mail past its time is unknown, but in a held mailbox", |s| {
        Box::pin(accounts::past_its_time(s))
    }),
    check("what its owner has from elsewhere leaves the mailbox as acknowledged", |s| {
        Box::pin(accounts::copies(s))
    }),
    check("what one has from elsewhere changes no other mailbox", |s| {
        Box::pin(accounts::other_mailbox(s))
    }),
    check("a late copy of what a registered owner has is a duplicate until its time", |s| {
        Box::pin(accounts::late_copy(s))
    }),
    check("what its owner acknowledged before is not waited for", |s| {
        Box::pin(accounts::acknowledged_before(s))
    }),
    check("what its owner has from elsewhere is not waited for longer than two days", |s| {
        Box::pin(accounts::too_late(s))
    }),
    check("what who left has from elsewhere is forgotten", |s| {
        Box::pin(accounts::ahead_of_who_leaves(s))
    }),
    check("names ahead of mail are bounded, and those that were taken stay", |s| {
        Box::pin(accounts::bounded(s))
    }),
    check("what was deposited before a time expires, and nothing later", |s| {
        Box::pin(expire::before(s))
    }),
    check("expiry goes in steps, oldest first, over all mailboxes", |s| {
        Box::pin(expire::in_steps(s))
    }),
    check("expired mail may be left anew under a later id", |s| Box::pin(expire::left_anew(s))),
    check("until when mail has expired is known as it was noted last", |s| {
        Box::pin(expire::noted(s))
    }),
    check("keys of acknowledged mail are forgotten at their time", |s| {
        Box::pin(expire::forgotten(s))
    }),
    check("depth tells count, bytes and the oldest", |s| Box::pin(summary::depth(s))),
    check("what leaves a mailbox is counted by the way it left", |s| Box::pin(summary::totals(s))),
    check("mailboxes are listed by name, page by page", |s| Box::pin(summary::listed(s))),
    check("an empty mailbox stays listed", |s| Box::pin(summary::empty_listed(s))),
    check("a healthy store says so", |s| Box::pin(summary::health(s))),
    check("deposits at once are all stored, in the order of their ids", |s| {
        Box::pin(together::deposits(s))
    }),
    check("the same mail left many times at once is stored once", |s| {
        Box::pin(together::same_mail(s))
    }),
    check("deposits at once never overfill a mailbox", |s| Box::pin(together::overfull(s))),
    check("a deposit that returned is in the next collect", |s| {
        Box::pin(together::seen_at_once(s))
    }),
    check("an origin that fills its share hinders no other", |s| Box::pin(quotas::share_full(s))),
    check("a share is bounded in bytes, too", |s| Box::pin(quotas::share_of_bytes(s))),
    check("a full relay refuses mail for any mailbox and creates none", |s| {
        Box::pin(quotas::relay_full(s))
    }),
    check("shares are counted by origin, and those of nothing go away", |s| {
        Box::pin(quotas::shares_are_counted(s))
    }),
    check("what is turned away from a mailbox is counted by reason and origin", |s| {
        Box::pin(losses::turned_away(s))
    }),
    check("a duplicate is no loss, and neither is what its owner has", |s| {
        Box::pin(losses::no_loss(s))
    }),
    check("what expires is counted as lost unless it was of the moment", |s| {
        Box::pin(losses::expired(s))
    }),
    check("losses of more origins than are counted apart are summed up", |s| {
        Box::pin(losses::bounded(s))
    }),
    check("losses that their owner knows are forgotten, and none that came after", |s| {
        Box::pin(losses::forgotten(s))
    }),
    check("mail expires at its own time", |s| Box::pin(custody::at_its_own_time(s))),
    check("a held mailbox takes mail and hands none out", |s| Box::pin(custody::hold(s))),
    check("mail that comes due in a held mailbox stays", |s| Box::pin(custody::held_mail_stays(s))),
    check("what an operator drops is counted, and may be left anew", |s| {
        Box::pin(custody::drop_all(s))
    }),
    check("an operator drops one envelope, or those of one origin", |s| {
        Box::pin(custody::drop_some(s))
    }),
    check("an operator drops any number of envelopes", |s| Box::pin(custody::drop_many(s))),
    check("envelopes are listed without their content", |s| Box::pin(custody::envelopes(s))),
    check("what was exported is imported once, under later ids", |s| {
        Box::pin(custody::exported_and_imported(s))
    }),
    check("an import asks for no quota", |s| Box::pin(custody::import_asks_no_quota(s))),
    check("totals are the sum over all mailboxes", |s| Box::pin(custody::totals(s))),
    check("a registration stands until it is replaced", |s| Box::pin(registry::registered(s))),
    check("who leaves has its mail dropped or kept, as it says", |s| Box::pin(registry::left(s))),
    check("ids are not given out again to who left", |s| Box::pin(registry::ids_after_leaving(s))),
    check("an invite admits one server", |s| Box::pin(registry::invite_once(s))),
    check("an expired, revoked, unknown or another server's invite admits nobody", |s| {
        Box::pin(registry::invite_refused(s))
    }),
    check("an invite used by many at once admits one", |s| Box::pin(registry::invite_together(s))),
    check("invites are listed until they are used", |s| Box::pin(registry::invites_listed(s))),
    check("a registration by nobody's word lapses when its server is silent", |s| {
        Box::pin(lapse::silent(s))
    }),
    check("a registration by the operator's word never lapses", |s| {
        Box::pin(lapse::by_operator(s))
    }),
    check("a mailbox with mail, a hold, a registration or losses that count stays", |s| {
        Box::pin(lapse::stays(s))
    }),
    check(
        "a mailbox with a hold, losses or mail of late stays when its registration lapses",
        |s| Box::pin(lapse::needed_without_registration(s)),
    ),
    check("a mailbox was used when its last mail came, whatever came first", |s| {
        Box::pin(lapse::used_later(s))
    }),
    check("registrations and mailboxes each go by their own time", |s| {
        Box::pin(lapse::by_their_own_times(s))
    }),
    check(
        "an empty mailbox goes after a long time, and what was acknowledged is remembered",
        |s| Box::pin(lapse::empty(s)),
    ),
    check("an empty mailbox goes at once when its owner has left for good", |s| {
        Box::pin(lapse::left(s))
    }),
    check("lapsing goes in steps, in the order of names", |s| Box::pin(lapse::in_steps(s))),
    check("mail to be delivered onward is found by recipient and origin, in its order", |s| {
        Box::pin(onward::found(s))
    }),
    check("what was delivered is gone, counted and remembered", |s| Box::pin(onward::handed_on(s))),
    check("what its recipient refused stays to be collected, and is delivered no more", |s| {
        Box::pin(onward::refused(s))
    }),
    check("an origin takes back its own mail that was to be delivered, and nothing else", |s| {
        Box::pin(onward::withdrawn(s))
    }),
    check("what one origin has delivered onward is bounded over all recipients", |s| {
        Box::pin(onward::bounded(s))
    }),
    check("to how many recipients one origin has mail delivered onward is bounded", |s| {
        Box::pin(onward::destinations_bounded(s))
    }),
    check("what one origin has delivered onward is bounded in bytes, too", |s| {
        Box::pin(onward::bounded_in_bytes(s))
    }),
    check("what its origin takes back makes room for other mail to be delivered", |s| {
        Box::pin(onward::withdrawn_makes_room(s))
    }),
    check("mail that lies there already is delivered if its origin asks for it", |s| {
        Box::pin(onward::asked_for_later(s))
    }),
    check("mail that lies there already is refused if it is to be delivered beyond a bound", |s| {
        Box::pin(onward::asked_for_later_beyond_a_bound(s))
    }),
    check("what is past its time is not delivered", |s| Box::pin(onward::past_its_time(s))),
    check(
        "mailboxes for nothing but mail to be delivered are bounded apart from all others",
        |s| Box::pin(onward::mailboxes_counted_apart(s)),
    ),
    check(
        "an empty mailbox for mail to be delivered makes room for another, and no other does",
        |s| Box::pin(onward::empty_ones_make_room(s)),
    ),
    check("mail whose origin asks for it later is bounded like all", |s| {
        Box::pin(onward::asked_for_later_and_bounded(s))
    }),
    check("nothing is delivered out of a held mailbox", |s| Box::pin(onward::held(s))),
    check("registrations and invites are bounded", |s| Box::pin(registry::bounded(s))),
    check("records, patterns and notes are bounded in bytes", |s| {
        Box::pin(registry::bounded_in_bytes(s))
    }),
];

const fn check(name: &'static str, run: fn(Store) -> Running) -> Check {
    Check { name, run }
}
