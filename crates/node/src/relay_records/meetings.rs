//! Asks whoever was met for its relays while it is there, and looks at the records that came with mail: one after the
//! other, in the background.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use restante_federation::BoundedMap;
use restante_federation_proto::ServerName;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::hearsay::Heard;
use super::pace::{Looked, Outcome};
use super::sources::{Said, Source, ask};
use super::{RelayRecords, Taken};
use crate::restart::kept_running;

/// The least time between two questions, so that whoever federates with thousands of servers asks them over an hour.
const PAUSE: Duration = Duration::from_secs(1);

impl RelayRecords {
    /// Looks into what is heard until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let work = || async {
            shutdown.run_until_cancelled(self.look_into_all()).await;
        };
        kept_running("learning relays", &shutdown, work).await;
    }

    async fn look_into_all(&self) {
        while let Some(heard) = self.shared.site.hearsay.next().await {
            match heard {
                Heard::Brought(candidate) => {
                    // The next mail brings it again.
                    if self.take_in(&candidate).await == Taken::NotNow {
                        self.shared.site.hearsay.forget(&candidate.server);
                    }
                }
                Heard::Met(server) => self.meet(&server).await,
            }
        }
    }

    async fn meet(&self, server: &ServerName) {
        let site = &self.shared.site;
        let before = self.met().get(server).copied();
        let is_early = before.is_some_and(|looked| !looked.is_over(site.clock.now()));
        // Where the operator has spoken, no record counts.
        let is_settled = server == site.server_name() || site.relays.is_named(server);
        if is_early || is_settled || !self.shared.look_up {
            return;
        }
        let outcome = match ask(site, Source::Server, server).await {
            Said::Record(candidate) => {
                self.take_in(&candidate).await;
                match self.known(server).await {
                    Ok(Some(_)) => Outcome::Answered,
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
