//! The load: servers that leave, collect and acknowledge mail at a relay, all at once, over real HTTP.
//!
//! Every server is named by its key, so that the relay asks nobody for keys. What each does is drawn from the seed; how the calls
//! of several interleave is not.

mod audit;
mod caller;
mod collector;
mod letter;
mod malformed;
mod sender;
mod target;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::SeedableRng;
use rand::rngs::StdRng;
use restante_federation::{ClientConfig, ClientConfigError, FederationClient, Identity, Peer};
use restante_federation_proto::{Clock, ServerName, SigningKey};
use tokio::task::JoinSet;

use crate::recorder::Recorder;
use caller::Caller;
use collector::Collector;
use letter::Shelf;
use sender::Sender;
use target::Target;

/// How large a load is.
#[derive(Debug, Clone, Copy)]
pub struct LoadPlan {
    /// What everything is drawn from.
    pub seed: u64,
    /// Servers that leave mail, each in a task of its own.
    pub senders: usize,
    /// Mailboxes.
    pub mailboxes: usize,
    /// Tasks that collect from each mailbox.
    pub collectors_per_mailbox: usize,
    /// Bytes of text in the largest letters; most are of some hundred bytes.
    pub letter_bytes_max: usize,
}

impl LoadPlan {
    /// The load that the crash harness uses: small enough that a relay has many deaths in a minute, with letters on both
    /// sides of the size from which a relay packs them on another thread.
    pub fn with_seed(seed: u64) -> Self {
        Self {
            seed,
            senders: 8,
            mailboxes: 4,
            collectors_per_mailbox: 2,
            letter_bytes_max: 100 * 1024,
        }
    }
}

/// A load on one relay.
pub struct Load {
    plan: LoadPlan,
    caller: Arc<Caller>,
    mailboxes: Vec<Identity>,
    shelf: Arc<Shelf>,
    budget: Arc<Budget>,
    /// Each run draws from other numbers.
    runs: AtomicUsize,
}

impl Load {
    /// A load that has no relay yet.
    pub fn new(plan: LoadPlan, clock: Arc<dyn Clock>) -> Result<Self, ClientConfigError> {
        let client = FederationClient::new(ClientConfig::default(), clock.clone())?;
        let caller = Arc::new(Caller {
            client,
            clock,
            target: Target::nowhere(),
            recorder: Recorder::new(),
        });
        let mailboxes = (0..plan.mailboxes).map(|number| identity(plan.seed, 'm', number));
        let mailboxes = mailboxes.collect();
        let (shelf, budget) = (Arc::default(), Arc::default());
        Ok(Self { plan, caller, mailboxes, shelf, budget, runs: AtomicUsize::new(0) })
    }

    /// Sends what follows to `relay`; until the first time, and after [`Load::point_nowhere`], calls wait.
    pub fn point_at(&self, relay: Peer) {
        self.caller.target.set(Some(relay));
    }

    /// Lets calls wait that have not begun.
    pub fn point_nowhere(&self) {
        self.caller.target.set(None);
    }

    /// The history.
    pub fn recorder(&self) -> &Recorder {
        &self.caller.recorder
    }

    /// The owners of the mailboxes.
    pub fn mailboxes(&self) -> impl Iterator<Item = &ServerName> {
        self.mailboxes.iter().map(|mailbox| &mailbox.server_name)
    }

    /// Begins no more calls, so that [`Load::run`] returns as soon as those under way are over.
    pub fn stop(&self) {
        self.budget.0.store(0, Ordering::SeqCst);
    }

    /// Makes `calls` calls from all tasks together, and returns when the last is over.
    pub async fn run(&self, calls: usize) {
        self.budget.0.store(calls, Ordering::SeqCst);
        let run = self.runs.fetch_add(1, Ordering::SeqCst) as u64;
        let mut tasks = JoinSet::new();
        for number in 0..self.plan.senders {
            let sender = Sender {
                caller: self.caller.clone(),
                identity: identity(self.plan.seed, 's', number),
                mailboxes: self.mailboxes.iter().map(|one| one.server_name.clone()).collect(),
                shelf: self.shelf.clone(),
                letter_bytes_max: self.plan.letter_bytes_max,
                rng: self.rng(run, 's', number),
            };
            tasks.spawn(sender.run(self.budget.clone()));
        }
        for number in 0..self.mailboxes.len() * self.plan.collectors_per_mailbox {
            let collector = Collector::new(
                self.caller.clone(),
                self.mailboxes.clone(),
                number % self.mailboxes.len(),
                self.shelf.clone(),
                self.rng(run, 'c', number),
            );
            tasks.spawn(collector.run(self.budget.clone()));
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }

    fn rng(&self, run: u64, role: char, number: usize) -> StdRng {
        StdRng::from_seed(seed_of(self.plan.seed, run, role, number))
    }
}

/// Calls that may still be made.
#[derive(Default)]
struct Budget(AtomicUsize);

impl Budget {
    fn take_one(&self) -> bool {
        let one_less = |left: usize| left.checked_sub(1);
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok()
    }
}

/// The server with this role and number: the same for the same seed.
fn identity(seed: u64, role: char, number: usize) -> Identity {
    let id = "ed25519:auto".parse().expect("it is a key id");
    let key = SigningKey::from_seed(id, &seed_of(seed, 0, role, number));
    Identity { server_name: ServerName::of_key(&key.public_key()), key: Arc::new(key) }
}

fn seed_of(seed: u64, run: u64, role: char, number: usize) -> [u8; 32] {
    crate::history::Digest::of(format!("{seed} {run} {role} {number}").as_bytes()).0
}
