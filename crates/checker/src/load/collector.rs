//! A mailbox's owner: collects with a cursor and without, acknowledges what it has, and now and then what it has not, and names mail
//! that it has from elsewhere.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use restante_federation::Identity;

use super::Budget;
use super::caller::Caller;
use super::letter::Shelf;
use crate::history::{Acknowledged, Answer, Collect, Collected, Deposit, Digest, Had};

/// Envelopes that an owner remembers to have seen and not acknowledged.
const HELD_MAX: usize = 2000;

/// The longest wait of a collect here: mail comes within milliseconds.
const WAIT_MAX_MS: u64 = 40;

/// Mail that one collect says to be there from elsewhere.
const HAVE_MAX: usize = 3;

/// Bytes of the pages that are asked for.
const PAGE_BYTES: [u64; 4] = [1, 2_000, 20_000, 4 * 1024 * 1024];

/// One task of a mailbox's owner.
pub(super) struct Collector {
    caller: Arc<Caller>,
    owners: Vec<Identity>,
    own: usize,
    /// What was left, or is about to be, at this relay and so perhaps at others.
    shelf: Arc<Shelf>,
    rng: StdRng,
    cursor: u64,
    /// What was seen and not acknowledged for certain.
    held: VecDeque<(u64, Digest)>,
}

impl Collector {
    pub(super) fn new(
        caller: Arc<Caller>,
        owners: Vec<Identity>,
        own: usize,
        shelf: Arc<Shelf>,
        rng: StdRng,
    ) -> Self {
        Self { caller, owners, own, shelf, rng, cursor: 0, held: VecDeque::new() }
    }

    pub(super) async fn run(mut self, budget: Arc<Budget>) {
        while budget.take_one() {
            match self.rng.random_range(0..20) {
                0 => self.spy().await,
                1..5 => self.relay_txn().await,
                _ => self.collect().await,
            }
        }
    }

    async fn collect(&mut self) {
        let acknowledge = self.choose_acknowledgements();
        let have = self.choose_had();
        let rng = &mut self.rng;
        let after = if rng.random_bool(0.4) { 0 } else { self.cursor };
        let limit = if rng.random_bool(0.5) { 500 } else { rng.random_range(1..8) };
        let max_bytes = PAGE_BYTES[if rng.random_bool(0.6) { 3 } else { rng.random_range(0..3) }];
        let wait = if rng.random_bool(0.5) { 0 } else { rng.random_range(1..=WAIT_MAX_MS) };
        let collect = Collect { after, limit, max_bytes, acknowledge: acknowledge.clone(), have };
        let owner = &self.owners[self.own];
        let (relay, wait) = (self.caller.target.peer().await, Duration::from_millis(wait));
        let answer = self.caller.collect(&relay, owner, collect, wait).await;
        if let Answer::Collected(collected) = answer {
            self.forget(&acknowledge);
            self.take(&collected);
        }
    }

    /// Some of what it has, with the right hash or none; seldom with a wrong one, or an id of nothing, which removes nothing.
    fn choose_acknowledgements(&mut self) -> Vec<Acknowledged> {
        let mut chosen = Vec::new();
        for (id, sha256) in &self.held {
            let sha256 = match self.rng.random_range(0..100) {
                0..40 => Some(*sha256),
                40..60 => None,
                60..62 => Some(Digest([0xee; 32])),
                _ => continue,
            };
            chosen.push(Acknowledged { id: *id, sha256 });
        }
        if self.rng.random_bool(0.05) {
            chosen.push(Acknowledged { id: self.rng.random_range(1..1 << 31), sha256: None });
        }
        // More than a relay takes in one request are refused.
        chosen.truncate(restante_relay_api::limits::ACKNOWLEDGEMENTS_MAX);
        chosen
    }

    /// Some of what others left lately; seldom of another's mail, which changes nothing.
    fn choose_had(&mut self) -> Vec<Had> {
        if !self.rng.random_bool(0.2) {
            return Vec::new();
        }
        let own = &self.owners[self.own].server_name;
        let others_too = self.rng.random_bool(0.2);
        let left = self.shelf.all().into_iter().map(|(_, letter)| {
            let Deposit { mailbox, key, .. } = letter.deposit.clone();
            Had { mailbox, key }
        });
        let mut had: Vec<_> = left.filter(|had| others_too || had.mailbox == *own).collect();
        while had.len() > HAVE_MAX {
            had.swap_remove(self.rng.random_range(0..had.len()));
        }
        had
    }

    async fn relay_txn(&mut self) {
        let with_entry = self.rng.random_bool(0.7);
        let entry = self.held.front().copied().filter(|_| with_entry).map_or(0, |(id, _)| id);
        let owner = &self.owners[self.own];
        let relay = self.caller.target.peer().await;
        let answer = self.caller.relay_txn(&relay, owner, &owner.server_name, entry).await;
        if let Answer::Collected(collected) = answer {
            self.held.retain(|(id, _)| *id != entry);
            self.take(&collected);
        }
    }

    /// Asks for another's mail, and tries to acknowledge it.
    async fn spy(&mut self) {
        let other = self.rng.random_range(0..self.owners.len());
        if other != self.own {
            let entry = self.held.front().map_or(0, |(id, _)| *id);
            let mailbox = self.owners[other].server_name.clone();
            let relay = self.caller.target.peer().await;
            self.caller.relay_txn(&relay, &self.owners[self.own], &mailbox, entry).await;
        }
    }

    fn forget(&mut self, acknowledged: &[Acknowledged]) {
        let is_gone = |id: u64, sha256: Digest| {
            acknowledged.iter().any(|one| {
                one.id == id && one.sha256.is_none_or(|acknowledged| acknowledged == sha256)
            })
        };
        self.held.retain(|(id, sha256)| !is_gone(*id, *sha256));
    }

    fn take(&mut self, collected: &Collected) {
        for seen in &collected.envelopes {
            self.cursor = self.cursor.max(seen.id);
            if self.held.len() < HELD_MAX && !self.held.iter().any(|(id, _)| *id == seen.id) {
                self.held.push_back((seen.id, seen.content));
            }
        }
    }
}
