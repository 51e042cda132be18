//! Wakes the servers whose mail we may have missed: one signed request to each when this node is back.
//!
//! A homeserver that could not reach us backs off, Synapse for up to a week. Any signed request of ours makes it take us for up
//! and send at once what it kept (read in Synapse's `authenticate_request`; Dendrite clears its back-off likewise).

mod plan;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::pin::pin;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use http::Method;
use restante_federation::{Patience, Peer, ask, is_sign_of_life, signed_request};
use restante_federation_proto::ServerName;
use restante_operators::Adjustable;
use restante_relay_api::limits::TIME_TO_LIVE;
use restante_sqlite::StoreError;
use tokio::sync::{OnceCell, watch};
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::backoff::backoff;
use crate::comeback::{Comeback, Comebacks};
use crate::inbox::Inbox;
use crate::restart::kept_running;
use crate::site::Site;
use crate::store::correspondents;
use plan::Plan;

/// A question that every homeserver authenticates and that asks for nothing: the keys of no devices.
const QUESTION: &str = "/_matrix/federation/v1/user/keys/query";

/// Its body.
const NO_DEVICES: &[u8] = br#"{"device_keys":{}}"#;

/// Servers that are woken after one comeback: those met last. Others find out by themselves, as they would without us.
const WOKEN_MAX: u32 = 500;

/// Servers that are woken at the same time.
const AT_ONCE: usize = 8;

/// The least time that one of [`AT_ONCE`] takes: at most 16 requests begin in a second.
const PACE: Duration = Duration::from_millis(500);

/// How long connecting, and the answer, may take. What comes later has done its work all the same.
const PATIENCE: Patience =
    Patience { connect: Duration::from_secs(10), answer: Duration::from_secs(10) };

/// The wait before the own homeserver is asked again whether it is up, doubled each time, ...
const OWN_FIRST: Duration = Duration::from_millis(500);

/// ... up to this.
const OWN_MAX: Duration = Duration::from_secs(10);

/// Times that it may not answer before the log says so.
const TOLD_AFTER: u32 = 10;

/// Bytes of the answer: an empty list, or an error.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How often both clocks are compared.
const CLOCKS_READ: Duration = Duration::from_secs(15);

/// Wakes others at the start and after each comeback, until `shutdown`.
pub(crate) async fn run(
    site: Site,
    inbox: Inbox,
    wakes: Adjustable<bool>,
    comebacks: Comebacks,
    shutdown: CancellationToken,
) {
    let waker = Waker { site, inbox, wakes, comebacks };
    let work = || async {
        shutdown.run_until_cancelled(waker.wake_after_each()).await;
    };
    kept_running("waking other servers", &shutdown, work).await;
}

struct Waker {
    site: Site,
    inbox: Inbox,
    wakes: Adjustable<bool>,
    comebacks: Comebacks,
}

impl Waker {
    async fn wake_after_each(&self) {
        let mut comebacks = self.comebacks.watch();
        let mut reading = pin!(self.read_clocks());
        let mut comeback = *comebacks.borrow_and_update();
        loop {
            let waking = async {
                if self.wakes.current() && self.was_away(comeback) {
                    self.wake().await;
                }
                std::future::pending::<Comeback>().await
            };
            // Who is back once more begins anew with everybody.
            comeback = tokio::select! {
                biased;
                comeback = self.back_once_more(&mut comebacks) => comeback,
                () = &mut reading => return,
                comeback = waking => comeback,
            }
        }
    }

    /// The next comeback after which others have to be told; a relay that was down itself cuts no waking short.
    async fn back_once_more(&self, comebacks: &mut watch::Receiver<Comeback>) -> Comeback {
        loop {
            if comebacks.changed().await.is_err() {
                return std::future::pending().await;
            }
            let comeback = *comebacks.borrow_and_update();
            if self.was_away(comeback) {
                return comeback;
            }
        }
    }

    /// Relays that were silent show nothing if others answered meanwhile.
    fn was_away(&self, comeback: Comeback) -> bool {
        match comeback {
            Comeback::Started | Comeback::Slept => true,
            Comeback::RelaysAnswer(silence) => {
                let since = self.site.clock.now().before(silence);
                !self.site.destinations.any_answered_since(since)
            }
        }
    }

    /// Compares the clocks for ever. After a sleep the long polls may wait on connections that lead nowhere.
    async fn read_clocks(&self) {
        let mut due = interval(CLOCKS_READ);
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            if self.comebacks.read_clocks(self.site.clock.now()) {
                self.inbox.ask_relays_at_once();
            }
        }
    }

    /// Waits until the own homeserver answers. Whom we tell before that looks at us at once, finds it away, and backs off anew.
    async fn homeserver_is_up(&self) {
        let mut failures = 0;
        while !self.site.homeserver.is_up().await {
            failures += 1;
            if failures == TOLD_AFTER {
                tracing::warn!(
                    "the homeserver does not answer; nobody is told that we are back before it does"
                );
            }
            sleep(backoff(failures, OWN_FIRST, OWN_MAX, self.site.dice.fraction())).await;
        }
    }

    async fn wake(&self) {
        self.homeserver_is_up().await;
        let (site, back_at) = (&self.site, self.site.clock.now());
        match site.database.read(correspondents::last_woken_at).await {
            Ok(last) => sleep(Plan::begins_at(last, back_at).since(back_at)).await,
            Err(error) => return unreadable(&error),
        }
        let now = site.clock.now();
        let met = site.database.read(move |connection| {
            correspondents::met_since(connection, now.before(TIME_TO_LIVE), WOKEN_MAX)
        });
        let mut plan = match met.await {
            Ok(met) => Plan::new(met, back_at, now),
            Err(error) => return unreadable(&error),
        };
        if plan.asleep.is_empty() {
            return;
        }
        let noted = OnceCell::new();
        while !plan.asleep.is_empty() {
            self.homeserver_is_up().await;
            let unreached = self.wave(&plan.asleep, &noted).await;
            let woken = plan.asleep.len() - unreached.len();
            tracing::info!(
                servers.woken = woken,
                servers.unreached = unreached.len(),
                "told other servers that we are back"
            );
            let Some(wait) = plan.next_wave(unreached) else { return };
            sleep(wait).await;
        }
    }

    /// Asks each; those that did not answer, in their order. That others are told is noted with the first who hears it: a line that is
    /// still down must not keep the next comeback from being told.
    async fn wave(&self, servers: &[ServerName], noted: &OnceCell<()>) -> Vec<ServerName> {
        let asking: Vec<_> = servers.iter().map(|server| self.ask_at_pace(server, noted)).collect();
        // One that takes long keeps nobody behind it waiting.
        let unreached = stream::iter(asking).buffer_unordered(AT_ONCE);
        let unreached: HashSet<_> = unreached.filter_map(std::future::ready).collect().await;
        servers.iter().filter(|server| unreached.contains(*server)).cloned().collect()
    }

    /// Gives `server` back if it can't be reached.
    async fn ask_at_pace(&self, server: &ServerName, noted: &OnceCell<()>) -> Option<ServerName> {
        let begun = Instant::now();
        let is_awake = self.is_awake(server).await;
        if is_awake {
            noted.get_or_init(|| self.note_waking()).await;
        }
        sleep(PACE.saturating_sub(begun.elapsed())).await;
        (!is_awake).then(|| server.clone())
    }

    async fn note_waking(&self) {
        let now = self.site.clock.now();
        let noted = self.site.database.write(move |c| correspondents::note_waking(c, now)).await;
        if let Err(error) = noted {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "not noted that others are told that we are back");
        }
    }

    /// Whether `server` knows now that we are there.
    async fn is_awake(&self, server: &ServerName) -> bool {
        let site = &self.site;
        let target = QUESTION.parse().expect("the path holds nothing that can't be signed");
        let body = Some(NO_DEVICES.into());
        let request = signed_request(&site.identity, Method::POST, &target, server, body);
        let (exchange, peer) = (&*site.exchange, Peer::from(server.clone()));
        let asked = ask(exchange, &peer, request, PATIENCE, ANSWER_BYTES_MAX);
        let answer = timeout(PATIENCE.connect + PATIENCE.answer, asked).await;
        let is_awake =
            answer.is_ok_and(|answer| answer.is_ok_and(|answer| is_sign_of_life(answer.outcome())));
        if is_awake {
            site.destinations.answered(server).await;
        }
        is_awake
    }
}

fn unreadable(error: &StoreError) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(
        error,
        "whom to tell that we are back can't be read; they find out by themselves"
    );
}
