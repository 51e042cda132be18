//! The inbox: mail for the homeserver, durable from its arrival until it is confirmed or parked.
//!
//! What is decided here is decided in the pure files [`order`], [`readiness`], [`window`], [`schedule`] and [`load`];
//! with [`gap`], [`backlog`] and [`acl`] for what can't be delivered as it came; [`delivery`], [`rewrap`] and
//! [`confirmation`] carry it out.

pub(crate) mod acl;
mod apart;
mod ask_origin;
pub(crate) mod backlog;
mod backlog_rooms;
mod confirmation;
mod confirmations;
pub(crate) mod content_hash;
mod delivery;
mod gap;
mod grown;
mod load;
pub(crate) mod mail;
mod offers;
pub(crate) mod order;
mod origin_turns;
mod others_first;
mod parked;
mod places;
pub(crate) mod readiness;
mod relays_wanted;
mod rewrap;
mod schedule;
mod set_aside;
mod status;
mod stream_holes;
#[cfg(test)]
mod tests;
pub(crate) mod transaction;
mod upkeep;
pub(crate) mod verification;
mod window;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use restante_federation_proto::{ServerName, Timestamp};
use restante_operators::Adjustable;
use restante_relay_api::Waybill;
use restante_sqlite::{StoreError, all_or_each};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::InboxSection;
use crate::restart::kept_running;
use crate::site::Site;
use crate::store::backlog::{self as backlog_rows, Share};
use crate::store::inbox::{self as rows, Stored};
use crate::store::seen;

use acl::ServerAcl;
use backlog_rooms::BacklogRooms;
use confirmations::Confirmations;
use load::{Class, Load, Weight};
use mail::{Mail, Standing};
use order::RelaysHeard;
use relays_wanted::RelaysWanted;
use transaction::Transaction;

pub(crate) use offers::Offer;
pub(crate) use parked::{ParkedId, ParkedIdError, Retried};
pub(crate) use relays_wanted::RelaysWantedListener;
pub(crate) use status::InboxStatus;

/// The inbox. Clones share it.
#[derive(Clone)]
pub(crate) struct Inbox {
    shared: Arc<Shared>,
}

struct Shared {
    site: Site,
    settings: Adjustable<InboxSettings>,
    started: Instant,
    started_at: Timestamp,
    state: Mutex<State>,
    /// Mail became due for delivery.
    mail_due: Notify,
    /// Events are to be looked for.
    looks_due: Notify,
    /// A room's backlog became due.
    backlog_due: Notify,
    /// Unverified mail is to be judged again.
    judging_due: Notify,
    relays_wanted: RelaysWanted,
}

#[derive(Default)]
struct State {
    load: Load,
    confirmations: Confirmations,
    delivering: HashSet<i64>,
    woken: BTreeSet<ServerName>,
    progressed: BTreeSet<String>,
    /// Origins whose next envelope waits for something to happen in its rooms.
    waits_for_rooms: BTreeSet<ServerName>,
    to_judge: BTreeSet<ServerName>,
    /// Origins whose unverified mail is judged, since a key of theirs is believed.
    judging: BTreeSet<ServerName>,
    drained_at: BTreeMap<ServerName, Timestamp>,
    /// When the relays were last asked out of turn.
    relays_asked_at: Option<Timestamp>,
    backlog: BacklogRooms,
    /// Who may take part in rooms, and when that was read.
    acls: HashMap<String, (Timestamp, Arc<Vec<ServerAcl>>)>,
    /// The envelope of each origin before which a hole was reported last.
    holes_reported: BTreeMap<ServerName, i64>,
    /// The row behind which the next look at an origin's unverified mail begins.
    judged_through: BTreeMap<ServerName, i64>,
    /// Origins whose signature the homeserver does not believe, since when.
    keyless: BTreeMap<ServerName, Timestamp>,
}

/// How the inbox works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InboxSettings {
    /// How long a transaction waits for a room that is not ready, while a relay may still close the gap.
    pub(crate) gap_wait: Duration,
}

impl From<InboxSection> for InboxSettings {
    fn from(section: InboxSection) -> Self {
        Self { gap_wait: section.gap_wait.0 }
    }
}

/// What became of arriving mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It is in the inbox, durably.
    Stored,
    /// It arrived before.
    Duplicate,
    /// There is no room; it must stay where it is.
    Full,
}

/// Runs everything behind the inbox until `shutdown`.
pub(crate) async fn run(inbox: Inbox, shutdown: CancellationToken) {
    tokio::join!(
        kept_running("delivery", &shutdown, || origin_turns::run(&inbox, &shutdown)),
        kept_running("the delivery of backlogs", &shutdown, || rewrap::run(&inbox, &shutdown)),
        kept_running("the look-out for servers", &shutdown, || ask_origin::run(&inbox, &shutdown)),
        kept_running("confirmation", &shutdown, || confirmation::run(&inbox, &shutdown)),
        kept_running("the inbox's upkeep", &shutdown, || upkeep::run(&inbox, &shutdown)),
    );
}

impl Inbox {
    /// Opens the inbox, with everything in it that waits.
    pub(crate) async fn open(
        site: Site,
        settings: impl Into<Adjustable<InboxSettings>>,
    ) -> Result<Self, StoreError> {
        let mut state = State::default();
        for share in rows::shares(&site.database).await? {
            let weight = Weight { count: share.count, bytes: share.bytes };
            let class = if share.is_proven { Class::Proven } else { Class::Unproven };
            if share.state != "forged" {
                state.load.restore(&share.origin, class, weight);
            }
            if share.state == "waiting" {
                state.load.waits(&share.origin, share.count);
                state.woken.insert(share.origin);
            }
        }
        for share in backlog_rows::shares(&site.database).await? {
            state.take_for_backlog(&share);
        }
        let shared = Shared {
            settings: settings.into(),
            started: Instant::now(),
            started_at: site.clock.now(),
            site,
            state: Mutex::new(state),
            mail_due: Notify::new(),
            looks_due: Notify::new(),
            backlog_due: Notify::new(),
            judging_due: Notify::new(),
            relays_wanted: RelaysWanted::default(),
        };
        let inbox = Self { shared: Arc::new(shared) };
        inbox.restore_unconfirmed().await?;
        inbox.restore_backlog().await?;
        Ok(inbox)
    }

    /// Takes mail in: one durable write for all of it. Says for each what became of it.
    ///
    /// Runs to its end even if the caller stops waiting, so that the rows and what is known of them agree.
    pub(crate) async fn arrive(&self, mails: Vec<Mail>) -> Result<Vec<Arrival>, StoreError> {
        let inbox = self.clone();
        let arriving = tokio::spawn(async move { inbox.take_in(mails).await });
        arriving.await.map_err(|_| StoreError::Panicked)?
    }

    async fn take_in(&self, mails: Vec<Mail>) -> Result<Vec<Arrival>, StoreError> {
        let mut arrivals = vec![Arrival::Full; mails.len()];
        let mut admitted = Vec::with_capacity(mails.len());
        for (index, mail) in mails.into_iter().enumerate() {
            if self.admit(&mail) {
                admitted.push((index, mail));
            }
        }
        if admitted.is_empty() {
            return Ok(arrivals);
        }
        let rows: Vec<Mail> = admitted.iter().map(|(_, mail)| mail.clone()).collect();
        let stored = self.store(rows).await;
        self.site().bells.receipts.notify_one();
        for (_, mail) in &admitted {
            if let Standing::Receipts(_) = mail.standing {
                self.site().bells.told_by(&mail.key.origin);
            }
        }
        let mut again = Vec::new();
        {
            let mut state = self.state();
            let stored = match stored {
                Ok(stored) => stored,
                Err(error) => {
                    admitted.iter().for_each(|(_, mail)| state.release(mail));
                    return Err(error);
                }
            };
            for ((index, mail), stored) in admitted.into_iter().zip(stored) {
                let Some(stored) = stored else {
                    state.release(&mail);
                    continue;
                };
                state.count(&mail, stored);
                if stored == Stored::New {
                    arrivals[index] = Arrival::Stored;
                } else {
                    arrivals[index] = Arrival::Duplicate;
                    again.push(mail);
                }
            }
        }
        self.shared.mail_due.notify_one();
        self.shared.judging_due.notify_one();
        for mail in again {
            match self.enclose_later(&mail).await {
                // It would come again and again.
                Err(error) if error.is_damage() => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(%mail.key.origin, mail.key.txn_id, error, "what goes along with mail that is here can't be kept; check the disk");
                }
                kept => kept?,
            }
        }
        Ok(arrivals)
    }

    /// Stores all in one commit or, where damage is in the way, each in a commit of its own; `None` for what can't be stored, which stays
    /// where it is.
    async fn store(&self, mails: Vec<Mail>) -> Result<Vec<Option<Stored>>, StoreError> {
        let arrive = |mails| rows::arrive(self.database(), mails, self.now());
        let stays = |mail: &Mail, error: &StoreError| {
            let error = error as &dyn std::error::Error;
            tracing::error!(%mail.key.origin, mail.key.txn_id, error, "mail can't be stored for damage in the node's database; check the disk");
        };
        let stored = all_or_each(&mails, arrive, stays).await?;
        let each = |stored: Option<Vec<Stored>>| match stored {
            Some(stored) => stored.into_iter().map(Some).collect(),
            None => vec![None],
        };
        Ok(stored.into_iter().flat_map(each).collect())
    }

    fn admit(&self, mail: &Mail) -> bool {
        let Some(class) = mail.class() else { return true };
        self.state().load.admit(&mail.key.origin, class, mail.weight()).is_ok()
    }

    /// Lets direct mail of `origin` go straight to the homeserver; `None` while older mail of it waits here, or while the
    /// homeserver is not known to have what was delivered before in a room of `content`: it drops what follows events
    /// that it dropped, and only what is in the inbox is delivered again.
    pub(crate) fn begin_passing(&self, origin: &ServerName, content: &Bytes) -> Option<Passing> {
        if self.follows_unconfirmed(content) {
            return None;
        }
        let now = self.elapsed();
        let may_pass = self.state().load.begin_passing(origin, now);
        may_pass.then(|| Passing { inbox: self.clone(), origin: origin.clone() })
    }

    fn follows_unconfirmed(&self, content: &Bytes) -> bool {
        let is_quiet = |state: &State| state.confirmations.is_idle() && state.backlog.is_empty();
        if is_quiet(&self.state()) {
            return false;
        }
        let rooms = Transaction::parse(content).rooms();
        let state = self.state();
        rooms.iter().any(|room| state.backlog.contains(room) || state.confirmations.is_busy(room))
    }

    /// Whether mail of `origin` is due before what `waybill` speaks of, by the waybill's own word: it may lie at a relay,
    /// or be judged just now. A stream that is met for the first time begins with 1; the inbox knows how long to wait.
    pub(crate) async fn is_behind_hole(&self, origin: &ServerName, waybill: Waybill) -> bool {
        let done = seen::done_through(self.database(), origin.clone(), waybill.stream).await;
        done.is_ok_and(|done| waybill.seq > done.unwrap_or(0).saturating_add(1))
    }

    /// Notes that a transaction went straight to the homeserver, and its place.
    pub(crate) async fn passed(
        &self,
        key: seen::TransactionKey,
        place: mail::StreamPlace,
        content: &[u8],
    ) -> Result<(), StoreError> {
        let (origin, place) = (key.origin.clone(), (place.stream, place.seq));
        let edus = grown::edu_fingerprints(content);
        seen::passed(self.database(), key, place, edus, self.now()).await?;
        self.wake(&origin);
        Ok(())
    }

    /// `relay` was asked at `asked_at` or later, and gave all that it has.
    pub(crate) fn relay_drained(&self, relay: &ServerName, asked_at: Timestamp) {
        let waiting = {
            let mut state = self.state();
            state.drained_at.insert(relay.clone(), asked_at);
            state.load.waiting()
        };
        waiting.iter().for_each(|origin| self.wake(origin));
    }

    /// Tells when the relays should be asked at once, long poll or not.
    pub(crate) fn relays_wanted(&self) -> RelaysWantedListener {
        self.shared.relays_wanted.listen()
    }

    /// Has the relays asked at once, whatever they were asked lately: connections that stand may lead nowhere.
    pub(crate) fn ask_relays_at_once(&self) {
        self.shared.relays_wanted.say();
    }

    fn relays_heard(&self) -> RelaysHeard {
        let relays = self.site().relays.of(self.site().server_name());
        let state = self.state();
        let mut drained =
            relays.iter().map(|relay| state.drained_at.get(&relay.peer.name).copied());
        // Without relays there is nobody to wait for.
        let all = drained.try_fold(self.now(), |all, drained| Some(all.min(drained?)));
        RelaysHeard { started_at: self.shared.started_at, all_drained_at: all }
    }

    /// Asks the relays at once, unless they were asked out of turn at `since` or later: what they gave is known then.
    fn ask_relays(&self, since: Timestamp) {
        let now = self.now();
        let was_asked = {
            let mut state = self.state();
            let was_asked = state.relays_asked_at.is_some_and(|at| at >= since && at <= now);
            if !was_asked {
                state.relays_asked_at = Some(now);
            }
            was_asked
        };
        if !was_asked {
            self.shared.relays_wanted.say();
        }
    }

    /// Something happened in the room that others may have waited for.
    fn progressed(&self, room_id: &str) {
        let now = self.elapsed();
        let mut state = self.state();
        state.progressed.insert(room_id.to_owned());
        if state.backlog.happened(room_id, now) {
            self.shared.backlog_due.notify_one();
        }
        drop(state);
        self.shared.mail_due.notify_one();
    }

    /// Everything that waits is looked at anew.
    fn wake_all(&self) {
        let mut state = self.state();
        let waiting = state.load.waiting();
        state.woken.extend(waiting);
    }

    fn wake(&self, origin: &ServerName) {
        self.state().woken.insert(origin.clone());
        self.shared.mail_due.notify_one();
    }

    fn site(&self) -> &Site {
        &self.shared.site
    }

    fn database(&self) -> &restante_sqlite::Database {
        &self.shared.site.database
    }

    fn now(&self) -> Timestamp {
        self.shared.site.clock.now()
    }

    /// Time since the start, by the clock that is never set: for what is kept in memory alone.
    fn elapsed(&self) -> Timestamp {
        Timestamp::EPOCH.after(self.shared.started.elapsed())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts mail that was admitted, by what became of it.
    fn count(&mut self, mail: &Mail, stored: Stored) {
        let Stored::Known { added } = stored else { return self.stored(mail) };
        self.release(mail);
        if added > 0 {
            let origin = &mail.key.origin;
            self.load.restore(origin, Class::Proven, Weight { count: 0, bytes: added });
            self.woken.insert(origin.clone());
        }
    }

    fn stored(&mut self, mail: &Mail) {
        let origin = &mail.key.origin;
        if matches!(mail.standing, Standing::Waiting | Standing::Proofless) {
            self.load.waits(origin, 1);
            self.woken.insert(origin.clone());
        }
        if mail.is_proven() && self.load.has_unproven(origin) {
            self.to_judge.insert(origin.clone());
        }
    }

    /// Counts what events of the backlog take.
    fn take_for_backlog(&mut self, share: &Share) {
        let (class, weight) = of_share(share);
        self.load.restore(&share.origin, class, weight);
    }

    /// Gives back what events of the backlog took.
    fn give_back(&mut self, share: &Share) {
        let (class, weight) = of_share(share);
        self.load.release(&share.origin, class, weight);
    }

    fn release(&mut self, mail: &Mail) {
        if let Some(class) = mail.class() {
            self.load.release(&mail.key.origin, class, mail.weight());
        }
    }
}

/// Events count by their bytes alone, which were admitted as those of an envelope: one envelope may bring a thousand, and its origin would
/// use up everybody's room.
fn of_share(share: &Share) -> (Class, Weight) {
    let class = if share.is_proven { Class::Proven } else { Class::Unproven };
    (class, Weight { count: 0, bytes: share.bytes })
}

/// Direct mail of one origin on its way to the homeserver; while it is, nothing of the inbox goes there for that
/// origin.
pub(crate) struct Passing {
    inbox: Inbox,
    origin: ServerName,
}

impl Drop for Passing {
    fn drop(&mut self) {
        self.inbox.state().load.end_passing(&self.origin);
        self.inbox.wake(&self.origin);
    }
}
