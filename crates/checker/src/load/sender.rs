//! A server that leaves mail: its own and others', once and again.

use std::sync::Arc;

use rand::RngExt;
use rand::rngs::StdRng;
use restante_federation::Identity;
use restante_federation_proto::ServerName;

use super::Budget;
use super::caller::Caller;
use super::letter::{Draft, Form, Letter, Shelf};
use super::malformed;
use crate::history::Answer;

/// Bytes of text in most letters.
const SMALL_BYTES_MAX: usize = 600;

/// One task's worth of mail.
pub(super) struct Sender {
    pub(super) caller: Arc<Caller>,
    pub(super) identity: Identity,
    pub(super) mailboxes: Vec<ServerName>,
    pub(super) shelf: Arc<Shelf>,
    pub(super) letter_bytes_max: usize,
    pub(super) rng: StdRng,
}

impl Sender {
    pub(super) async fn run(mut self, budget: Arc<Budget>) {
        // What got no answer is left again, as a node does.
        let mut unanswered: Option<Arc<Letter>> = None;
        while budget.take_one() {
            if let Some(letter) = unanswered.take() {
                unanswered = self.leave(letter).await;
                continue;
            }
            match self.rng.random_range(0..100) {
                0..4 => self.send_malformed().await,
                4..16 => self.leave_again().await,
                _ => {
                    let letter = Arc::new(self.write());
                    self.shelf.put(&self.identity, letter.clone());
                    unanswered = self.leave(letter).await;
                }
            }
        }
    }

    /// Leaves its own letter; gives it back when nobody answered.
    async fn leave(&mut self, letter: Arc<Letter>) -> Option<Arc<Letter>> {
        let relay = self.caller.target.peer().await;
        let answer = self.caller.deposit(&relay, &self.identity, &letter).await;
        (answer == Answer::Lost).then_some(letter)
    }

    /// Leaves something that was left before. Whoever wrote it has to bring it, unless it is proven.
    async fn leave_again(&mut self) {
        let Some((writer, letter)) = self.shelf.any(&mut self.rng) else { return };
        let courier = if letter.is_proven { &self.identity } else { &writer };
        let relay = self.caller.target.peer().await;
        self.caller.deposit(&relay, courier, &letter).await;
    }

    fn write(&mut self) -> Letter {
        let rng = &mut self.rng;
        let longest = match rng.random_range(0..40) {
            0 => self.letter_bytes_max,
            1..5 => self.letter_bytes_max / 10,
            _ => SMALL_BYTES_MAX,
        };
        // Text that packs badly, so that what is large here is large on the disk as well.
        let text: String = (0..rng.random_range(1..=longest.max(1)))
            .map(|_| char::from(rng.random_range(b'0'..=b'z')))
            .filter(|letter| letter.is_ascii_alphanumeric())
            .collect();
        let form = match rng.random_range(0..10) {
            0..6 => Form::Proven,
            6..9 => Form::Plain,
            _ => Form::Anonymous,
        };
        // Few enough ids that one comes back with other content now and then.
        let txn_id =
            rng.random_range(0..1_000_000_u32) % if rng.random_bool(0.05) { 3 } else { u32::MAX };
        let unique: u64 = rng.random();
        Letter::write(&Draft {
            from: &self.identity,
            to: &self.mailboxes[rng.random_range(0..self.mailboxes.len())],
            txn_id: &txn_id.to_string(),
            text: &format!("{unique:016x} {text}"),
            form,
            now: self.caller.clock.now(),
        })
    }

    async fn send_malformed(&mut self) {
        let mailbox = &self.mailboxes[self.rng.random_range(0..self.mailboxes.len())];
        let kind = self.rng.random_range(0..malformed::KINDS);
        let relay = self.caller.target.peer().await;
        malformed::send(&self.caller, &relay, &self.identity, mailbox, kind).await;
    }
}
