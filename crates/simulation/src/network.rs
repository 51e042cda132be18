//! The network: who can be reached, how long that takes, and what is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use restante_federation_proto::ServerName;

use crate::chance::Chance;
use crate::copies::Copies;
use crate::plan::Plan;
use crate::story::Story;

/// What answers requests behind a door.
pub(crate) type Handler = Arc<
    dyn Fn(Request<Bytes>) -> Pin<Box<dyn Future<Output = Response<Bytes>> + Send>> + Send + Sync,
>;

/// What a test breaks on purpose, to see that the checks notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Deposits are answered 200 on their way, and reach no relay.
    DepositsGoNowhere,
    /// Relays that are taken for honest say 200 and keep nothing.
    RelaysForget,
    /// Homeservers say 200 and forget every other transaction.
    HomeserversForget,
}

/// All machines, and what lies between them.
pub(crate) struct Network {
    pub(crate) story: Arc<Story>,
    pub(crate) copies: Copies,
    pub(crate) sabotage: Option<Sabotage>,
    chance: Chance,
    state: Mutex<State>,
    tally: Mutex<BTreeMap<&'static str, u64>>,
}

#[derive(Default)]
struct State {
    doors: BTreeMap<String, Door>,
    cuts: BTreeSet<(String, String)>,
    loss_permille: u64,
    latency_max: Duration,
}

#[derive(Default)]
struct Door {
    handler: Option<Handler>,
    /// Changes with every start and stop of what is behind it.
    opening: u64,
}

/// A door that is open, and since which opening.
#[derive(Clone)]
pub(crate) struct OpenDoor {
    pub(crate) handler: Handler,
    opening: u64,
}

/// What becomes of one exchange, drawn when it begins.
pub(crate) struct Weather {
    pub(crate) way_there: Duration,
    pub(crate) way_back: Duration,
    pub(crate) loses_request: bool,
    pub(crate) loses_answer: bool,
    /// Whether the other side goes on when the caller hangs up.
    pub(crate) outlives_caller: bool,
}

/// The least that a message is on its way.
const LATENCY_MIN: Duration = Duration::from_micros(500);

impl Network {
    pub(crate) fn new(
        plan: &Plan,
        story: Arc<Story>,
        copies: Copies,
        sabotage: Option<Sabotage>,
    ) -> Self {
        let state = State {
            loss_permille: plan.loss_permille,
            latency_max: plan.latency_max,
            ..State::default()
        };
        let chance = Chance::new(plan.seed ^ 0x006e_6574);
        let (state, tally) = (Mutex::new(state), Mutex::default());
        Self { story, copies, sabotage, chance, state, tally }
    }

    /// Something of this kind happened.
    pub(crate) fn count(&self, kind: &'static str) {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += 1;
    }

    /// How often what happened.
    pub(crate) fn tally(&self) -> BTreeMap<&'static str, u64> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens a door, or shuts it.
    pub(crate) fn set_door(&self, name: &str, handler: Option<Handler>) {
        let mut state = self.state();
        let door = state.doors.entry(name.to_owned()).or_default();
        door.handler = handler;
        door.opening += 1;
    }

    /// The door, if it is open.
    pub(crate) fn door(&self, name: &str) -> Option<OpenDoor> {
        let state = self.state();
        let door = state.doors.get(name)?;
        Some(OpenDoor { handler: door.handler.clone()?, opening: door.opening })
    }

    /// Whether what was behind the door is still the same.
    pub(crate) fn is_still_open(&self, name: &str, door: &OpenDoor) -> bool {
        self.door(name).is_some_and(|now| now.opening == door.opening)
    }

    pub(crate) fn cut(&self, one: &str, other: &str) {
        self.state().cuts.insert(pair(one, other));
    }

    pub(crate) fn join(&self, one: &str, other: &str) {
        self.state().cuts.remove(&pair(one, other));
    }

    /// Nothing is cut, lost or slow any more.
    pub(crate) fn mend(&self) {
        let mut state = self.state();
        state.cuts.clear();
        state.loss_permille = 0;
        state.latency_max = Duration::from_millis(50);
    }

    pub(crate) fn is_cut(&self, one: &ServerName, other: &ServerName) -> bool {
        self.state().cuts.contains(&pair(one.as_str(), other.as_str()))
    }

    /// Draws what becomes of an exchange between machines.
    pub(crate) fn weather(&self) -> Weather {
        let state = self.state();
        let latency = LATENCY_MIN..state.latency_max.max(LATENCY_MIN * 2);
        Weather {
            way_there: self.chance.duration(latency.clone()),
            way_back: self.chance.duration(latency),
            loses_request: self.chance.happens(state.loss_permille),
            loses_answer: self.chance.happens(state.loss_permille),
            outlives_caller: self.chance.happens(500),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pair(one: &str, other: &str) -> (String, String) {
    let (first, second) = if one < other { (one, other) } else { (other, one) };
    (first.to_owned(), second.to_owned())
}
