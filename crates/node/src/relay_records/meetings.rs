//! Asks whoever was met for its relays while it is there, and looks at the records that came with mail, in the background.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use restante_federation::BoundedMap;
use restante_federation_proto::ServerName;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::hearsay::Meeting;
use super::pace::{Looked, Need, Outcome};
use super::sources::{Said, Source, ask};
use super::{Candidate, RelayRecords, Taken};
use crate::restart::kept_running;
use crate::site::Site;
use crate::store::correspondents;

/// Servers that are asked at a time, and records that are looked at: one that answers slowly keeps few others waiting.
const AT_ONCE: usize = 4;

/// The least time between two questions of [`AT_ONCE`], so that whoever federates with thousands of servers does not ask
/// them all in a minute.
const PAUSE: Duration = Duration::from_secs(4);

/// The longest that a record is looked at. Who was met is there, and mail that is proven has a key that is believed.
const TAKE_IN_MAX: Duration = Duration::from_secs(5);

impl RelayRecords {
    /// Looks into what is heard until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let work = || async {
            shutdown.run_until_cancelled(self.look_into_all()).await;
        };
        kept_running("learning relays", &shutdown, work).await;
    }

    async fn look_into_all(&self) {
        let records = (0..AT_ONCE).map(|_| self.look_at_records());
        let meetings = (0..AT_ONCE).map(|_| self.meet_all());
        tokio::join!(join_all(records), join_all(meetings));
    }

    async fn look_at_records(&self) {
        while let Some(candidate) = self.shared.site.hearsay.next_brought().await {
            self.look_at(&candidate).await;
        }
    }

    async fn meet_all(&self) {
        while let Some((server, meeting)) = self.shared.site.hearsay.next_met().await {
            note_correspondent(&self.shared.site, &server, meeting).await;
            self.meet(&server).await;
        }
    }

    /// Takes in what came with mail; what can't be checked now comes again with the next.
    async fn look_at(&self, candidate: &Candidate) {
        if self.take_in_within(candidate, TAKE_IN_MAX).await == Taken::NotNow {
            self.shared.site.hearsay.forget(&candidate.server);
        }
    }

    async fn meet(&self, server: &ServerName) {
        let site = &self.shared.site;
        let before = self.met().get(server).copied();
        let is_early = before.is_some_and(|looked| !looked.is_over(Need::Newer, site.clock.now()));
        // Where the operator has spoken, no record counts.
        let is_settled = server == site.server_name() || site.relays.is_named(server);
        if is_early || is_settled || !self.shared.look_up {
            return;
        }
        let outcome = match ask(site, Source::Server, server).await {
            Said::Record(candidate) => {
                let taken = self.take_in_within(&candidate, TAKE_IN_MAX).await;
                match self.known(server).await {
                    Ok(Some(_)) if taken != Taken::NotNow => Outcome::Answered,
                    // Its key may not be known yet.
                    _ => Outcome::Nothing,
                }
            }
            Said::None => Outcome::Answered,
            Said::Nothing => Outcome::Nothing,
        };
        self.met().insert(server.clone(), Looked::next(before, outcome, site.clock.now()));
        sleep(PAUSE).await;
    }

    fn met(&self) -> MutexGuard<'_, BoundedMap<ServerName, Looked>> {
        self.shared.met.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Remembers whom to wake when we were away.
async fn note_correspondent(site: &Site, server: &ServerName, meeting: Meeting) {
    if server == site.server_name() {
        return;
    }
    let (met, now) = (server.clone(), site.clock.now());
    let noted = site
        .database
        .write(move |connection| correspondents::note(connection, &met, (meeting, now)));
    if let Err(error) = noted.await {
        let error = &error as &dyn std::error::Error;
        tracing::debug!(error, %server, "not noted as met");
    }
}
