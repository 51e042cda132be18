//! What each destination is known to have: what it was sent, what was left for it, what came from it.
//!
//! A memory that is wanting costs a larger capsule, never an event: what is not known to be there is left along.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use restante_federation_proto::{Clock, ServerName};
use restante_relay_api::limits::{MEMORY_BEYOND_TIME_TO_LIVE, TIME_TO_LIVE};
use restante_sqlite::{Database, StoreError};

use crate::store::passed::{self, Limits};

/// How long it is remembered: as long as mail that builds on it may wait.
const REMEMBERED: Duration = TIME_TO_LIVE.saturating_add(MEMORY_BEYOND_TIME_TO_LIVE);

/// Events that are remembered for all destinations together; with their index they take about 150 MB.
const EVENTS_MAX: u64 = 500_000;

/// Which events are where. Clones share the memory.
#[derive(Clone)]
pub(crate) struct Passed {
    database: Database,
    clock: Arc<dyn Clock>,
}

impl Passed {
    /// Over the node's database.
    pub(crate) fn new(database: Database, clock: Arc<dyn Clock>) -> Self {
        Self { database, clock }
    }

    /// `server` has these events, or finds them in mail that waits for it. A failure is logged and costs a larger
    /// capsule.
    pub(crate) async fn note(&self, server: &ServerName, event_ids: BTreeSet<String>) {
        if event_ids.is_empty() {
            return;
        }
        let now = self.clock.now();
        let limits = Limits { forgotten_before: now.before(REMEMBERED), count_max: EVENTS_MAX };
        let noted = passed::note(&self.database, server.clone(), event_ids, now, limits).await;
        if let Err(error) = noted {
            tracing::warn!(%server, error = &error as &dyn std::error::Error, "what it has can't be remembered");
        }
    }

    /// `origin` sent these events: it has them, and what they follow.
    pub(crate) async fn note_from<'a>(
        &self,
        origin: &ServerName,
        events: impl IntoIterator<Item = (&'a str, &'a [String])>,
    ) {
        let mut event_ids = BTreeSet::new();
        for (event_id, prev_events) in events {
            event_ids.insert(event_id.to_owned());
            event_ids.extend(prev_events.iter().cloned());
        }
        self.note(origin, event_ids).await;
    }

    /// Which of `event_ids` `server` is known to have.
    pub(crate) async fn known(
        &self,
        server: &ServerName,
        event_ids: BTreeSet<String>,
    ) -> Result<BTreeSet<String>, StoreError> {
        passed::known(&self.database, server.clone(), event_ids).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_site::{TestSite, name};

    fn ids(ids: impl IntoIterator<Item = u32>) -> BTreeSet<String> {
        ids.into_iter().map(|id| format!("${id}")).collect()
    }

    async fn count(site: &TestSite) -> u32 {
        let sql = "SELECT count(*) FROM passed";
        site.database.read(|c| c.query_row(sql, [], |row| row.get(0))).await.unwrap()
    }

    #[tokio::test]
    async fn what_one_server_has_says_nothing_of_another() {
        let site = TestSite::new().await;
        let (b, c) = (name("b.test"), name("c.test"));
        site.passed.note(&b, ids([1, 2])).await;
        let follows = ["$3".to_owned()];
        site.passed.note_from(&c, [("$4", follows.as_slice())]).await;
        let site = site.restarted().await;
        assert_eq!(site.passed.known(&b, ids(0..9)).await.unwrap(), ids([1, 2]));
        assert_eq!(site.passed.known(&c, ids(0..9)).await.unwrap(), ids([3, 4]));
    }

    #[tokio::test]
    async fn what_is_too_old_is_forgotten_unless_it_was_noted_again() {
        let site = TestSite::new().await;
        let b = name("b.test");
        site.passed.note(&b, ids(0..10)).await;
        site.clock.advance(Duration::from_secs(30 * 86_400));
        site.passed.note(&b, ids([0])).await;
        site.clock.advance(Duration::from_secs(8 * 86_400));
        site.passed.note(&b, ids([99])).await;
        assert_eq!(site.passed.known(&b, ids(0..100)).await.unwrap(), ids([0, 99]));
    }

    #[tokio::test]
    async fn the_memory_has_an_end_and_the_oldest_go_first() {
        let site = TestSite::new().await;
        let limits = Limits { forgotten_before: site.clock.now(), count_max: 20 };
        for step in 0..10 {
            let noted = ids(step * 10..step * 10 + 10);
            passed::note(&site.database, name("b.test"), noted, site.clock.now(), limits)
                .await
                .unwrap();
        }
        assert_eq!(count(&site).await, 20);
        let known = site.passed.known(&name("b.test"), ids(0..100)).await.unwrap();
        assert_eq!(known, ids(80..100));
    }
}
