//! Takes down the history while it happens.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use restante_federation_proto::ServerName;
use tokio::sync::watch;

use crate::history::{Answer, Call, Op, Tick};

/// Every call of a load. Whoever starts and kills the relay notes its deaths here.
#[derive(Debug)]
pub struct Recorder {
    ticks: AtomicU64,
    notes: Mutex<Notes>,
    /// How many calls are over, so that others can wait for more.
    ended: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Notes {
    calls: Vec<Call>,
    deaths: Vec<Tick>,
}

impl Recorder {
    /// An empty history.
    pub fn new() -> Self {
        let ended = watch::Sender::new(0);
        Self { ticks: AtomicU64::new(0), notes: Mutex::default(), ended }
    }

    /// The tick before a call is sent.
    pub fn begin(&self) -> Tick {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }

    /// Takes down a call that began at `start` and is over.
    pub fn end(&self, start: Tick, caller: ServerName, op: Op, answer: Answer) {
        let mut notes = self.notes();
        let (number, end) = (notes.calls.len(), self.begin());
        notes.calls.push(Call { number, start, end, caller, op, answer });
        drop(notes);
        self.ended.send_modify(|ended| *ended += 1);
    }

    /// Takes down that the relay's process is gone: what it has not done by now it will never do.
    pub fn note_death(&self) {
        let mut notes = self.notes();
        let now = self.begin();
        notes.deaths.push(now);
    }

    /// How many calls are over.
    pub fn calls_ended(&self) -> usize {
        *self.ended.borrow()
    }

    /// Waits until `count` calls are over.
    pub async fn wait_for_calls(&self, count: usize) {
        let mut ended = self.ended.subscribe();
        // The sender lives as long as this recorder.
        let _ = ended.wait_for(|ended| *ended >= count).await;
    }

    /// The history so far, in the order in which the calls began.
    pub fn history(&self) -> Vec<Call> {
        let notes = self.notes();
        let mut calls = notes.calls.clone();
        for call in calls.iter_mut().filter(|call| call.answer == Answer::Lost) {
            let death = notes.deaths.partition_point(|death| *death < call.start);
            call.end = notes.deaths.get(death).copied().unwrap_or(Tick::MAX);
        }
        calls.sort_by_key(|call| call.start);
        for (number, call) in calls.iter_mut().enumerate() {
            call.number = number;
        }
        calls
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}
