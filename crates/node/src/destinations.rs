//! Which destinations are assumed offline, and when to probe them; survives a restart.

mod standing;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use http::Request;
use restante_federation::{Exchange, Patience, Peer, ask, empty, is_sign_of_life};
use restante_federation_proto::{Clock, ServerName, Timestamp};
use restante_operators::Adjustable;
use restante_relay_api::endpoints::VERSION;
use restante_sqlite::{Database, StoreError};
use tokio::sync::broadcast;

pub(crate) use standing::{Admission, OfflinePolicy, Standing};

use crate::background::Background;
use crate::restart::caught;
use crate::store;

/// Destinations that are remembered. Users of the homeserver can make it call any name, and each costs some memory.
const DESTINATIONS_MAX: usize = 50_000;

/// Servers whose return is told before somebody listens; whoever missed one finds out by asking.
const RETURNS_MAX: usize = 64;

/// How long a server that called us counts as there when the homeserver asks it about what it sent.
const CALLED_LATELY: Duration = Duration::from_secs(60);

/// How long a probe waits for the answer once it is connected.
const PROBE_ANSWER: Duration = Duration::from_secs(5);

/// Bytes of an answer to a probe: a name and a version.
const PROBE_ANSWER_BYTES_MAX: usize = 16 * 1024;

/// What is known of a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DestinationState {
    /// The destination.
    pub(crate) server_name: ServerName,
    /// Failed attempts since the last answer.
    pub(crate) failures: u32,
    /// Since when it is assumed offline.
    pub(crate) assumed_offline_since: Option<Timestamp>,
    /// When the next probe is due.
    pub(crate) next_probe_at: Option<Timestamp>,
}

/// What destinations are reached and remembered with.
pub(crate) struct DestinationParts {
    /// How to reach them.
    pub(crate) exchange: Arc<dyn Exchange>,
    /// Where their state is kept.
    pub(crate) database: Database,
    /// The time.
    pub(crate) clock: Arc<dyn Clock>,
    /// Owner of the probes.
    pub(crate) background: Background,
    /// When to assume, and when to look again.
    pub(crate) policy: Adjustable<OfflinePolicy>,
}

/// The states. Clones share them.
#[derive(Clone)]
pub(crate) struct Destinations {
    shared: Arc<Inner>,
}

struct Inner {
    parts: DestinationParts,
    known: Mutex<HashMap<ServerName, Known>>,
    returns: broadcast::Sender<ServerName>,
}

#[derive(Default)]
struct Known {
    standing: Standing,
    answered_at: Option<Timestamp>,
    /// When it answered for the first time since a call failed, or since the start.
    online_since: Option<Timestamp>,
    /// When it last called us while something was held against it.
    called_at: Option<Timestamp>,
    probe: Option<Probe>,
}

/// A probe under way; everybody who asks meanwhile waits for the same one.
type Probe = Shared<BoxFuture<'static, bool>>;

impl Destinations {
    /// Reads what was known when the node last ran.
    pub(crate) async fn open(parts: DestinationParts) -> Result<Self, StoreError> {
        let known = store::destinations::load(&parts.database).await?;
        let known = known
            .into_iter()
            .map(|(name, standing)| (name, Known { standing, ..Known::default() }))
            .collect();
        let returns = broadcast::Sender::new(RETURNS_MAX);
        Ok(Self { shared: Arc::new(Inner { parts, known: Mutex::new(known), returns }) })
    }

    /// Tells which servers answer again after calls to them failed.
    pub(crate) fn returns(&self) -> broadcast::Receiver<ServerName> {
        self.shared.returns.subscribe()
    }

    /// What is known of `server`; `None` when nothing failed.
    #[cfg(test)]
    pub(crate) fn state(&self, server: &ServerName) -> Option<DestinationState> {
        self.known().get(server).and_then(|known| state(server, known))
    }

    /// Every destination with failures, by name.
    pub(crate) fn all(&self) -> Vec<DestinationState> {
        let mut all: Vec<_> =
            self.known().iter().filter_map(|(server, known)| state(server, known)).collect();
        all.sort_by(|left, right| left.server_name.cmp(&right.server_name));
        all
    }

    fn policy(&self) -> OfflinePolicy {
        self.shared.parts.policy.current()
    }

    /// Whether `server` may be called now. A probe is taken by whoever asks first: it must be made.
    pub(crate) fn admit(&self, server: &ServerName) -> Admission {
        let now = self.now();
        let mut known = self.known();
        known
            .get_mut(server)
            .map_or(Admission::Attempt, |known| known.standing.admit(&self.policy(), now))
    }

    /// The same for a question about events that `server` sent. Whoever called lately is asked even while it is assumed
    /// offline: a homeserver that gets no answer drops for good what the server is sending at this moment.
    pub(crate) fn admit_question(&self, server: &ServerName) -> Admission {
        let admission = self.admit(server);
        let now = self.now();
        let called_at = self.known().get(server).and_then(|known| known.called_at);
        let called_lately = called_at.is_some_and(|at| now.since(at) < CALLED_LATELY);
        if admission == Admission::Offline && called_lately { Admission::Probe } else { admission }
    }

    /// How long a probe may take to connect.
    pub(crate) fn probe_connect(&self) -> Duration {
        self.policy().probe_connect
    }

    /// An attempt to call `server` failed. Returns what is known of it after that, durable if the disk lets it.
    pub(crate) async fn failed(&self, server: &ServerName) -> Standing {
        let now = self.now();
        let standing = {
            let mut known = self.known();
            let known = remember(&mut known, server);
            let assumed_before = known.standing.assumed_offline_since.is_some();
            known.standing.failed(&self.policy(), now);
            known.answered_at = None;
            known.online_since = None;
            if !assumed_before && known.standing.assumed_offline_since.is_some() {
                tracing::info!(destination = %server, failures = known.standing.failures, "assumed offline");
            }
            known.standing.clone()
        };
        self.save(server).await;
        standing
    }

    /// `server` answered a call of ours: nothing is held against it.
    pub(crate) async fn answered(&self, server: &ServerName) {
        let now = self.now();
        let had_failed = {
            let mut known = self.known();
            let known = remember(&mut known, server);
            known.answered_at = Some(now);
            known.online_since.get_or_insert(now);
            let before = std::mem::take(&mut known.standing);
            if before.assumed_offline_since.is_some() {
                tracing::info!(destination = %server, "answers again");
            }
            before.failures > 0
        };
        if had_failed {
            // Nobody need be listening.
            self.shared.returns.send(server.clone()).ok();
            self.save(server).await;
        }
    }

    /// Whether any server has answered a call of ours since `since`.
    pub(crate) fn any_answered_since(&self, since: Timestamp) -> bool {
        self.known().values().any(|known| known.answered_at.is_some_and(|at| at >= since))
    }

    /// `server` called us: if it is assumed offline, a probe follows in the background, at once or when the pause since the last one ends.
    pub(crate) fn sign_of_life(&self, server: &ServerName) {
        let now = self.now();
        let mut known = self.known();
        let Some(entry) = known.get_mut(server) else { return };
        entry.called_at = Some(now);
        match entry.standing.sign_of_life(&self.policy(), now) {
            None => {}
            Some(Duration::ZERO) => drop(self.probe(server, entry)),
            Some(wait) => {
                let (destinations, server) = (self.clone(), server.clone());
                self.shared.parts.background.spawn_after(wait, async move {
                    let mut known = destinations.known();
                    let entry = known.get_mut(&server);
                    let is_offline =
                        |known: &&mut Known| known.standing.assumed_offline_since.is_some();
                    if let Some(entry) = entry.filter(is_offline) {
                        drop(destinations.probe(&server, entry));
                    }
                });
            }
        }
    }

    /// Whether `server` answers now: its state if that is fresh, else a probe (bounded by the probe interval while it is assumed offline).
    pub(crate) async fn reachable(&self, server: &ServerName) -> bool {
        let now = self.now();
        let policy = self.policy();
        let probe = {
            let mut known = self.known();
            let known = remember(&mut known, server);
            let fresh = |at: Timestamp| now.since(at) < policy.probe_interval;
            if known.answered_at.is_some_and(fresh) {
                return true;
            }
            match known.probe.clone() {
                Some(under_way) => under_way,
                None if known.standing.admit(&policy, now) == Admission::Offline => return false,
                None => self.probe(server, known),
            }
        };
        probe.await
    }

    /// Since when `server` answers, as far as is known without asking.
    pub(crate) fn online_since(&self, server: &ServerName) -> Option<Timestamp> {
        self.known().get(server).and_then(|known| known.online_since)
    }

    /// Starts a probe, or joins the one under way.
    fn probe(&self, server: &ServerName, known: &mut Known) -> Probe {
        if let Some(under_way) = &known.probe {
            return under_way.clone();
        }
        let (destinations, peer) = (self.clone(), Peer::from(server.clone()));
        let probe = async move {
            let alive = caught("a probe", destinations.run_probe(&peer)).await.unwrap_or(false);
            // Also after a panic: else this server would never be probed again.
            if let Some(known) = destinations.known().get_mut(&peer.name) {
                known.probe = None;
            }
            alive
        };
        let probe = probe.boxed().shared();
        known.probe = Some(probe.clone());
        let running = probe.clone();
        self.shared.parts.background.spawn(async move {
            running.await;
        });
        probe
    }

    async fn run_probe(&self, peer: &Peer) -> bool {
        let Inner { parts, .. } = &*self.shared;
        let mut request = Request::new(empty());
        *request.uri_mut() = http::Uri::from_static(VERSION);
        let patience =
            Patience { connect: parts.policy.current().probe_connect, answer: PROBE_ANSWER };
        let answer = ask(&*parts.exchange, peer, request, patience, PROBE_ANSWER_BYTES_MAX).await;
        let alive = answer.as_ref().is_ok_and(|answer| is_sign_of_life(answer.outcome()));
        tracing::debug!(destination = %peer.name, alive, "probed");
        if alive {
            self.answered(&peer.name).await;
        } else {
            self.failed(&peer.name).await;
        }
        alive
    }

    async fn save(&self, server: &ServerName) {
        let (shared, name) = (self.shared.clone(), server.clone());
        // Reads the state on the writer: writes that overtake each other still leave the newest.
        let saved = self.shared.parts.database.write(move |connection| {
            let standing = lock(&shared.known).get(&name).map(|known| known.standing.clone());
            store::destinations::save(connection, &name, &standing.unwrap_or_default())
        });
        if let Err(error) = saved.await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, destination = %server, "its state will not survive a restart");
        }
    }

    fn now(&self) -> Timestamp {
        self.shared.parts.clock.now()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<ServerName, Known>> {
        lock(&self.shared.known)
    }
}

fn lock(known: &Mutex<HashMap<ServerName, Known>>) -> MutexGuard<'_, HashMap<ServerName, Known>> {
    known.lock().expect("nothing panics while it holds the destinations")
}

fn state(server: &ServerName, known: &Known) -> Option<DestinationState> {
    let Standing { failures, assumed_offline_since, next_probe_at } = known.standing.clone();
    let server_name = server.clone();
    (failures > 0).then_some(DestinationState {
        server_name,
        failures,
        assumed_offline_since,
        next_probe_at,
    })
}

/// The entry of `server`; makes room among those that nothing is held against, then among all.
fn remember<'a>(known: &'a mut HashMap<ServerName, Known>, server: &ServerName) -> &'a mut Known {
    if known.len() >= DESTINATIONS_MAX && !known.contains_key(server) {
        known.retain(|_, known| known.standing.failures > 0 || known.probe.is_some());
        if known.len() >= DESTINATIONS_MAX {
            known.retain(|_, known| known.probe.is_some());
        }
    }
    known.entry(server.clone()).or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_site::{Reply, TestSite, name};

    #[tokio::test(start_paused = true)]
    async fn assumed_offline_survives_a_restart() {
        let site = TestSite::new().await;
        let b = name("b.test");
        site.destinations.failed(&b).await;
        site.destinations.failed(&b).await;
        let before = site.destinations.state(&b).unwrap();
        assert!(before.assumed_offline_since.is_some());

        let site = site.restarted().await;
        assert_eq!(site.destinations.state(&b), Some(before));
        assert_eq!(site.destinations.admit(&b), Admission::Offline);

        site.destinations.answered(&b).await;
        let site = site.restarted().await;
        assert_eq!(site.destinations.all(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_from_a_server_assumed_offline_triggers_one_probe_that_clears_it() {
        let site = TestSite::new().await;
        let b = name("b.test");
        site.destinations.failed(&b).await;
        site.destinations.failed(&b).await;
        site.clock.advance(Duration::from_secs(6));
        site.exchange.answer(&b, Reply::Json(200, "{}"));

        for _ in 0..5 {
            site.destinations.sign_of_life(&b);
        }
        site.background.stop(Duration::from_secs(60)).await;
        assert_eq!(site.exchange.targets_of(&b), [VERSION]);
        assert_eq!(site.destinations.state(&b), None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_calls_right_after_it_was_found_offline_is_probed_a_moment_later() {
        let site = TestSite::new().await;
        let b = name("b.test");
        site.destinations.failed(&b).await;
        site.destinations.failed(&b).await;
        site.exchange.answer(&b, Reply::Json(200, "{}"));
        for _ in 0..5 {
            site.destinations.sign_of_life(&b);
        }
        assert_eq!(site.exchange.targets_of(&b).len(), 0);
        site.run(tokio::time::sleep(Duration::from_secs(6))).await;
        site.background.stop(Duration::from_secs(60)).await;
        assert_eq!(site.exchange.targets_of(&b), [VERSION]);
        assert_eq!(site.destinations.state(&b), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_to_come_holds_no_stop_up() {
        let site = TestSite::new().await;
        let b = name("b.test");
        site.destinations.failed(&b).await;
        site.destinations.failed(&b).await;
        site.destinations.sign_of_life(&b);
        let begun = tokio::time::Instant::now();
        site.background.stop(Duration::from_secs(60)).await;
        assert_eq!((begun.elapsed(), site.exchange.targets_of(&b).len()), (Duration::ZERO, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn an_inbound_call_alone_clears_nothing() {
        let site = TestSite::new().await;
        let b = name("b.test");
        site.destinations.failed(&b).await;
        site.destinations.failed(&b).await;
        site.clock.advance(Duration::from_secs(6));
        site.exchange.answer(&b, Reply::Refused);
        site.destinations.sign_of_life(&b);
        site.background.stop(Duration::from_secs(60)).await;
        assert_eq!(site.destinations.state(&b).unwrap().failures, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn whether_a_server_is_reachable_is_asked_once_and_then_known() {
        let site = TestSite::new().await;
        let b = name("b.test");
        site.exchange.answer(&b, Reply::Json(200, "{}"));
        let (first, second) =
            tokio::join!(site.destinations.reachable(&b), site.destinations.reachable(&b));
        assert!(first && second && site.destinations.reachable(&b).await);
        assert_eq!(site.exchange.targets_of(&b).len(), 1);

        site.exchange.answer(&b, Reply::Refused);
        site.clock.advance(Duration::from_secs(31));
        assert!(!site.destinations.reachable(&b).await);
        assert!(!site.destinations.reachable(&b).await);
        assert!(!site.destinations.reachable(&b).await);
        assert_eq!(site.exchange.targets_of(&b).len(), 3);
    }
}
