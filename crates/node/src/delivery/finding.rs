//! Finds out which relays a transaction may be left with, and has others looked for.

use std::collections::HashSet;

use restante_federation::Peer;
use restante_federation_proto::ServerName;
use tokio::time::Instant;

use super::Inner;
use super::resting::Place;
use crate::config::Preference;
use crate::relay_records::Need;

/// Relays of a server's own record that its mail is left with, those first that it wants tried first: a record may name many
/// more, and each of them may be somebody who never asked for it.
pub(super) const RELAYS_OF_RECORD_MAX: usize = 3;

impl Inner {
    /// The operator's word that a destination has no relay keeps its mail at home, unless there is another word for just that.
    pub(super) fn preference_for(&self, destination: &ServerName) -> Preference {
        let preferences = self.preferences.current();
        match self.site.relays.has_none(destination) {
            true => preferences.of_one_without_relays(destination),
            false => preferences.of(destination),
        }
    }

    /// Looks for relays if none is known that takes mail for `destination`, without waiting.
    pub(super) async fn look_for_relays_of(&self, destination: &ServerName) {
        if self.site.relays.is_named(destination) {
            return;
        }
        let known = self.known_relays_of(destination).await;
        if self.need_of(&known, destination) == Need::Another {
            self.records.look_for(destination, Need::Another);
        }
    }

    /// What is to be looked for where `known` are the relays of a record.
    fn need_of(&self, known: &[Peer], destination: &ServerName) -> Need {
        let refusals = self.deposits.refusals();
        let refuses = |relay: &Peer| {
            refusals
                .iter()
                .any(|refusal| refusal.relay == relay.name && refusal.destination == *destination)
        };
        if known.iter().all(refuses) { Need::Another } else { Need::Newer }
    }

    /// The relays of a record that came since `tried` took nothing: the destination may have moved. None if there is no
    /// time to try them; they are known for the next delivery then.
    pub(super) async fn others_than(
        &self,
        tried: &[Peer],
        destination: &ServerName,
        begun: Instant,
    ) -> Vec<Peer> {
        if tried.is_empty() || self.site.relays.is_named(destination) {
            return Vec::new();
        }
        let time_left = || self.schedule.current().direct_time_left(begun.elapsed());
        self.records.find(destination, time_left()).await;
        let mut relays = self.known_relays_of(destination).await;
        relays.retain(|relay| !tried.contains(relay) && !time_left().is_zero());
        relays
    }

    /// The relays of a destination, looked for if none is known and there is time. Those of a record are looked for again
    /// once in a while, and sooner if all refuse.
    pub(super) async fn relays_of(&self, destination: &ServerName, begun: Instant) -> Vec<Peer> {
        let known = self.known_relays_of(destination).await;
        if self.site.relays.is_named(destination) {
            return known;
        }
        if !known.is_empty() {
            self.records.look_for(destination, self.need_of(&known, destination));
            return known;
        }
        let wait = self.schedule.current().direct_time_left(begun.elapsed());
        self.records.find(destination, wait).await;
        self.known_relays_of(destination).await
    }

    pub(super) async fn known_relays_of(&self, destination: &ServerName) -> Vec<Peer> {
        let holding = self.site.relays.holding(destination).await;
        let mut relays = holding.unwrap_or_else(|error| {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, %destination, "its relay record can't be read");
            Vec::new()
        });
        if !self.site.relays.is_named(destination) {
            let mut places = HashSet::new();
            // Whoever stands at one URL under many names is called once.
            relays.retain(|relay| places.insert(Place::of(relay)));
            relays.truncate(RELAYS_OF_RECORD_MAX);
        }
        relays
    }
}
