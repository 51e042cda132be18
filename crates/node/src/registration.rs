//! Being served by relays: the homeserver registers at each of its own relays, joins further ones, and leaves them.
//!
//! A registration says which relays we have, who may leave mail for us, and how long it is kept; so it is renewed whenever
//! one of these changes.

mod call;
mod errors;
mod standing;
#[cfg(test)]
mod tests;
mod upkeep;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use restante_federation::{BaseUrl, Peer};
use restante_federation_proto::{ServerName, Timestamp};
use restante_relay_api::{InviteLine, LeftMail, RegistrationAnswer, RegistrationRequest};
use restante_sqlite::StoreError;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, watch};

use crate::config::MailboxSection;
use crate::own_record::publish::named;
use crate::relay_book::{Departure, DepartureState, KnownRelay, Outgoing};
use crate::relay_call::CallError;
use crate::site::Site;
use errors::{AttemptError, joining, leaving, staying};
use standing::standing;

pub(crate) use errors::RegistrationError;
pub(crate) use standing::{Standing, StandingState};

/// Our registrations. Clones share them.
#[derive(Clone)]
pub(crate) struct Registrations {
    shared: Arc<Inner>,
}

struct Inner {
    site: Site,
    terms: watch::Sender<MailboxSection>,
    relays: Mutex<BTreeMap<ServerName, Entry>>,
}

/// What is known of one relay.
#[derive(Clone)]
struct Entry {
    /// One question about registration at a time, so that the last answer is to the last question.
    turn: Arc<Semaphore>,
    standing: Option<Standing>,
    /// What the relay was told last.
    told: Option<Terms>,
}

impl Default for Entry {
    fn default() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), standing: None, told: None }
    }
}

/// What a registration says, without what changes each time.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Terms {
    relays: Vec<Peer>,
    mailbox: MailboxSection,
}

/// What became of leaving a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Left {
    /// It is no relay of ours any more.
    Left,
    /// It knows; what it holds is collected, and then it is left.
    Emptying,
}

impl Registrations {
    /// Nothing is registered yet; [`Self::run`] does that.
    pub(crate) fn new(site: Site, mailbox: MailboxSection) -> Self {
        let terms = watch::Sender::new(mailbox);
        Self { shared: Arc::new(Inner { site, terms, relays: Mutex::default() }) }
    }

    /// Where a changed configuration says who may leave mail, and how long it is kept.
    pub(crate) fn terms(&self) -> watch::Sender<MailboxSection> {
        self.shared.terms.clone()
    }

    /// How we stand with a relay; `None` before the first answer.
    pub(crate) fn of(&self, relay: &ServerName) -> Option<Standing> {
        self.relays().get(relay).and_then(|entry| entry.standing.clone())
    }

    /// Registers at the relay of the line, and collects from it from then on.
    pub(crate) async fn join(
        &self,
        line: &InviteLine,
    ) -> Result<RegistrationAnswer, RegistrationError> {
        let relay = self.peer_of(line)?;
        let turn = self.turn(&relay.name);
        let _turn = turn.acquire().await;
        let mut relays = self.recorded();
        relays.retain(|known| known.name != relay.name);
        relays.push(relay.clone());
        let attempt = self.attempt(&relay, relays, line.invite.clone()).await;
        let answer = attempt.map_err(|error| joining(&relay.name, error))?;
        let book = &self.shared.site.relays;
        book.add(self.shared.site.server_name().clone(), relay.clone()).await?;
        tracing::info!(relay = %relay.name, "joined a relay; it holds our mail from now on");
        Ok(answer)
    }

    /// Tells a relay that we leave. What it holds is dropped, or collected first.
    pub(crate) async fn leave(
        &self,
        relay: &ServerName,
        mail: LeftMail,
    ) -> Result<Left, RegistrationError> {
        let known = || {
            let known = self.known(relay);
            known.ok_or_else(|| RegistrationError::NotOurs(relay.clone()))
        };
        known()?;
        let turn = self.turn(relay);
        let _turn = turn.acquire().await;
        let known = known()?;
        self.depart(relay, mail, DepartureState::Asked).await?;
        match self.tell_departure(&known.peer, mail).await {
            Ok(left) => Ok(left),
            Err(error) if error.is_refusal() => {
                self.take_back(known).await?;
                Err(staying(relay, error))
            }
            // The relay may have done what it was told: it is told until it says so.
            Err(error) => Err(leaving(relay, error)),
        }
    }

    /// Things are as they were before the relay was to be told: it is ours, or is being emptied.
    async fn take_back(&self, before: KnownRelay) -> Result<(), StoreError> {
        let book = &self.shared.site.relays;
        match before.departure {
            Some(departure) if departure.state == DepartureState::Told => {
                book.depart(before.peer.name, departure).await
            }
            _ => book.stay(before.peer.name).await,
        }
    }

    /// Says that we leave; the next step is durable on return.
    async fn tell_departure(&self, relay: &Peer, mail: LeftMail) -> Result<Left, AttemptError> {
        match call::leave(&self.shared.site, relay, mail).await {
            // There is nobody to tell, and the mailbox ends with nobody collecting from it.
            Ok(()) | Err(CallError::Unknown) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(entry) = self.relays().get_mut(&relay.name) {
            // The turn stays: we have it, and others wait for it.
            (entry.standing, entry.told) = (None, None);
        }
        let (state, left) = match mail {
            LeftMail::Drop => (DepartureState::Done, Left::Left),
            LeftMail::Keep => (DepartureState::Told, Left::Emptying),
        };
        self.depart(&relay.name, mail, state).await?;
        tracing::info!(relay = %relay.name, ?mail, "told a relay that we leave");
        Ok(left)
    }

    async fn depart(
        &self,
        relay: &ServerName,
        mail: LeftMail,
        state: DepartureState,
    ) -> Result<(), StoreError> {
        let site = &self.shared.site;
        let departure = Departure { mail, state, since: site.clock.now() };
        site.relays.depart(relay.clone(), departure).await
    }

    fn peer_of(&self, line: &InviteLine) -> Result<Peer, RegistrationError> {
        let url = line.url.as_ref().map(|url| url.parse::<BaseUrl>()).transpose();
        let url = url.map_err(|error| RegistrationError::Url(error.to_string()))?;
        let own = self.shared.site.relays.own().into_iter();
        let known = own.map(|known| known.peer).find(|known| known.name == line.relay);
        let known = known.and_then(|known| known.url);
        // Mail is collected where the book says; a line that somebody sent must not lead that elsewhere.
        if let (Some(known), Some(url)) = (&known, &url)
            && known != url
        {
            return Err(RegistrationError::Elsewhere {
                relay: line.relay.clone(),
                known: known.clone(),
                line: url.clone(),
                own: self.shared.site.server_name().clone(),
            });
        }
        let url = url.or(known);
        if url.is_none() && line.relay.public_key().is_some() {
            return Err(RegistrationError::Nowhere(line.relay.clone()));
        }
        Ok(Peer::new(line.relay.clone(), url))
    }

    /// Registers once, and notes what came of it.
    async fn attempt(
        &self,
        relay: &Peer,
        relays: Vec<Peer>,
        invite: Option<String>,
    ) -> Result<RegistrationAnswer, AttemptError> {
        let terms = Terms { relays, mailbox: self.shared.terms.borrow().clone() };
        let answer = self.register(relay, &terms, invite).await;
        let standing = standing(&answer, self.shared.site.clock.now());
        let mut relays = self.relays();
        let entry = relays.entry(relay.name.clone()).or_default();
        if let Ok(granted) = &answer {
            entry.told = Some(terms);
            let outgoing = if granted.outgoing.is_some() { Outgoing::Yes } else { Outgoing::No };
            self.shared.site.relays.note_outgoing(&relay.name, outgoing);
        }
        entry.standing = Some(standing);
        answer
    }

    /// Asks to be served. Once more by the relay's clock, if it says that ours is wrong; and once more with a later
    /// record, if it holds one of ours that we do not know.
    async fn register(
        &self,
        relay: &Peer,
        terms: &Terms,
        invite: Option<String>,
    ) -> Result<RegistrationAnswer, AttemptError> {
        let site = &self.shared.site;
        match self.register_above(relay, terms, invite.clone(), None).await {
            Err(error) if error.is_perhaps_for_the_record() => {
                let held = call::own_record_at(site, relay).await;
                let record = self.record(&terms.relays, None, site.clock.now()).await?;
                match held.filter(|held| held.is_later_than(&record)) {
                    Some(held) => {
                        let version = held.version;
                        tracing::info!(relay = %relay.name, record.version = version.as_millis(), "a relay holds a newer relay record of ours than we know; the next one is above it");
                        self.register_above(relay, terms, invite, Some(version)).await
                    }
                    None => Err(error),
                }
            }
            answer => answer,
        }
    }

    async fn register_above(
        &self,
        relay: &Peer,
        terms: &Terms,
        invite: Option<String>,
        above: Option<Timestamp>,
    ) -> Result<RegistrationAnswer, AttemptError> {
        let site = &self.shared.site;
        let now = site.clock.now();
        let request = self.request(terms, invite.clone(), above, now).await?;
        match call::register(site, relay, &request).await {
            Err(CallError::Clock { theirs }) => {
                let signed_at = call::by_clock(site, theirs);
                let request = self.request(terms, invite, above, signed_at).await?;
                Ok(call::register(site, relay, &request).await?)
            }
            answer => Ok(answer?),
        }
    }

    async fn request(
        &self,
        terms: &Terms,
        invite: Option<String>,
        above: Option<Timestamp>,
        signed_at: Timestamp,
    ) -> Result<RegistrationRequest, AttemptError> {
        let site = &self.shared.site;
        // All the world sees the record: the time that one relay names has no part in it.
        let record = self.record(&terms.relays, above, site.clock.now()).await?;
        let keys = site.own_keys.document().await;
        Ok(RegistrationRequest {
            record: raw(&record),
            senders: terms.mailbox.senders(),
            time_to_live_ms: terms.mailbox.time_to_live_ms(),
            invite,
            keys: Some(raw(keys.raw())),
            // What that costs the relay it says itself; whether it is used is our own choice.
            outgoing: true,
            signed_at,
        })
    }

    async fn record(
        &self,
        relays: &[Peer],
        above: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Bytes, StoreError> {
        self.shared.site.own_record.naming(relays, above, now).await
    }

    /// What the book says of this relay of ours.
    fn known(&self, relay: &ServerName) -> Option<KnownRelay> {
        self.shared.site.relays.own().into_iter().find(|known| known.peer.name == *relay)
    }

    /// The relays that our record names.
    fn recorded(&self) -> Vec<Peer> {
        named(&self.shared.site.relays)
    }

    fn turn(&self, relay: &ServerName) -> Arc<Semaphore> {
        self.relays().entry(relay.clone()).or_default().turn.clone()
    }

    fn relays(&self) -> MutexGuard<'_, BTreeMap<ServerName, Entry>> {
        self.shared.relays.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn raw(json: &[u8]) -> Box<RawValue> {
    serde_json::from_slice(json).expect("what was signed here is JSON")
}
