//! Callers of the reference, whose calls interleave in every way that a seed can think of, with crashes in between.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use restante_checker::{
    Acknowledged, Answer, Call, Collect, Collected, Deposit, Digest, Had, Key, Op, RelayTxn, Tick,
};
use restante_federation_proto::ServerName;

use crate::bug::Bug;
use crate::reference::{Reference, without_key};

const CALLS: usize = 150;
const AT_ONCE_MAX: usize = 5;
const MAILBOXES: [&str; 3] = ["m.example", "n.example", "o.example"];

/// A history of the reference with `bug`, and whether the bug did harm.
pub(crate) fn history(seed: u64, bug: Option<Bug>) -> (Vec<Call>, bool) {
    let mut schedule = Schedule {
        rng: StdRng::seed_from_u64(seed),
        relay: Reference::with(bug),
        tick: 0,
        begun: 0,
        under_way: Vec::new(),
        calls: Vec::new(),
        left: Vec::new(),
        seen: Vec::new(),
    };
    schedule.run();
    (schedule.calls, schedule.relay.has_erred)
}

struct Schedule {
    rng: StdRng,
    relay: Reference,
    tick: Tick,
    begun: usize,
    under_way: Vec<UnderWay>,
    calls: Vec<Call>,
    left: Vec<Deposit>,
    seen: Vec<(ServerName, u64, Digest)>,
}

/// A call between its beginning and its end, and how much of it is done.
struct UnderWay {
    number: usize,
    start: Tick,
    caller: ServerName,
    op: Op,
    steps: usize,
    /// What was stored for certain when it began.
    before_it: BTreeSet<Key>,
    answer: Answer,
}

impl Schedule {
    fn run(&mut self) {
        while self.begun < CALLS || !self.under_way.is_empty() {
            match self.rng.random_range(0..100) {
                0..2 => self.crash(),
                2..30 if self.begun < CALLS && self.under_way.len() < AT_ONCE_MAX => {
                    let (caller, op) = self.any_call();
                    self.begin(caller, op);
                }
                30..33 => self.relay.commit(),
                _ => self.go_on(),
            }
        }
        self.audit();
        self.calls.sort_by_key(|call| call.number);
    }

    fn next_tick(&mut self) -> Tick {
        self.tick += 1;
        self.tick
    }

    fn begin(&mut self, caller: ServerName, op: Op) {
        let answered = self.calls.iter().filter(|call| call.answer == Answer::Deposited);
        let before_it = answered.filter_map(|call| match &call.op {
            Op::Deposit(deposit) => Some(deposit.key.clone()),
            _ => None,
        });
        let before_it = before_it.collect();
        let (start, number) = (self.next_tick(), self.begun);
        self.begun += 1;
        let answer = Answer::Lost;
        self.under_way.push(UnderWay { number, start, caller, op, steps: 0, before_it, answer });
    }

    /// One step of one call.
    fn go_on(&mut self) {
        if self.under_way.is_empty() {
            return;
        }
        let chosen = self.rng.random_range(0..self.under_way.len());
        let mut call = self.under_way.swap_remove(chosen);
        call.steps += 1;
        if call.step(&mut self.relay, &mut self.rng) {
            self.end(call);
        } else {
            self.under_way.push(call);
        }
    }

    fn end(&mut self, call: UnderWay) {
        if let (Answer::Collected(collected), Some(mailbox)) = (&call.answer, call.mailbox()) {
            for seen in &collected.envelopes {
                self.seen.push((mailbox.clone(), seen.id, seen.content));
            }
        }
        let end = self.next_tick();
        let UnderWay { number, start, caller, op, answer, .. } = call;
        self.calls.push(Call { number, start, end, caller, op, answer });
    }

    fn crash(&mut self) {
        let answered: BTreeSet<_> = self
            .calls
            .iter()
            .filter_map(|call| match (&call.op, &call.answer) {
                (Op::Deposit(deposit), Answer::Deposited) => Some(deposit.key.clone()),
                _ => None,
            })
            .collect();
        let acknowledged: BTreeSet<_> = self
            .calls
            .iter()
            .flat_map(|call| match (&call.op, &call.answer) {
                (Op::Collect(collect), Answer::Collected(_)) => {
                    collect.acknowledge.iter().map(|one| (call.caller.clone(), one.id)).collect()
                }
                (Op::RelayTxn(asked), Answer::Collected(_)) => {
                    vec![(asked.mailbox.clone(), asked.entry_id)]
                }
                _ => Vec::new(),
            })
            .collect();
        self.relay.crash(&answered, &acknowledged);
        for mut call in std::mem::take(&mut self.under_way) {
            call.answer = Answer::Lost;
            self.end(call);
        }
    }

    /// Everybody collects everything, alone.
    fn audit(&mut self) {
        for mailbox in MAILBOXES {
            let collect = Collect {
                after: 0,
                limit: 1000,
                max_bytes: 1 << 40,
                acknowledge: Vec::new(),
                have: Vec::new(),
            };
            self.begin(mailbox.parse().unwrap(), Op::Collect(collect));
            while !self.under_way.is_empty() {
                self.go_on();
            }
        }
    }

    fn any_call(&mut self) -> (ServerName, Op) {
        let mailbox: ServerName =
            MAILBOXES[self.rng.random_range(0..MAILBOXES.len())].parse().unwrap();
        match self.rng.random_range(0..20) {
            0..8 => self.any_deposit(mailbox),
            8..10 => {
                let other = MAILBOXES[self.rng.random_range(0..MAILBOXES.len())].parse().unwrap();
                let entry_id = self.any_seen(&mailbox).map_or(0, |(id, _)| id);
                (mailbox, Op::RelayTxn(RelayTxn { mailbox: other, entry_id }))
            }
            10 => (mailbox, Op::Malformed("nonsense")),
            _ => {
                let after = if self.rng.random_bool(0.6) {
                    0
                } else {
                    self.any_seen(&mailbox).map_or(0, |(id, _)| id)
                };
                let limit =
                    if self.rng.random_bool(0.5) { 100 } else { self.rng.random_range(1..4) };
                let max_bytes =
                    if self.rng.random_bool(0.7) { 1 << 40 } else { self.rng.random_range(1..200) };
                let acknowledge = self.any_acknowledgements(&mailbox);
                let have = self.any_had(&mailbox);
                (mailbox, Op::Collect(Collect { after, limit, max_bytes, acknowledge, have }))
            }
        }
    }

    fn any_deposit(&mut self, mailbox: ServerName) -> (ServerName, Op) {
        let origin: ServerName =
            ["a.example", "b.example"][self.rng.random_range(0..2)].parse().unwrap();
        if !self.left.is_empty() && self.rng.random_bool(0.25) {
            let deposit = self.left[self.rng.random_range(0..self.left.len())].clone();
            return (origin, Op::Deposit(deposit));
        }
        let sha256 = Digest::of(&self.rng.random::<u64>().to_be_bytes());
        let txn_id = self.rng.random_range(0..5_u8).to_string();
        let key = Key { origin: origin.clone(), txn_id, sha256 };
        let bytes = self.rng.random_range(1..100);
        let deposit = Deposit { mailbox, key, bytes, members: Digest::of(&[1]) };
        self.left.push(deposit.clone());
        (origin, Op::Deposit(deposit))
    }

    fn any_seen(&mut self, mailbox: &ServerName) -> Option<(u64, Digest)> {
        let own: Vec<_> = self.seen.iter().filter(|(name, ..)| name == mailbox).collect();
        let chosen = (!own.is_empty()).then(|| self.rng.random_range(0..own.len()))?;
        Some((own[chosen].1, own[chosen].2))
    }

    fn any_acknowledgements(&mut self, mailbox: &ServerName) -> Vec<Acknowledged> {
        let count = self.rng.random_range(0..4);
        let mut all = Vec::new();
        for _ in 0..count {
            let Some((id, sha256)) = self.any_seen(mailbox) else { break };
            let sha256 = match self.rng.random_range(0..10) {
                0..5 => Some(sha256),
                5 => Some(Digest::of(b"wrong")),
                _ => None,
            };
            all.push(Acknowledged { id, sha256 });
        }
        if self.relay.bug.is_none() && self.rng.random_bool(0.1) {
            // A guess at what may be given next.
            all.push(Acknowledged { id: self.rng.random_range(100..130), sha256: None });
        }
        all
    }
}

impl Schedule {
    /// Now and then something that was left or is being left, mostly for this mailbox.
    fn any_had(&mut self, mailbox: &ServerName) -> Vec<Had> {
        if self.left.is_empty() || !self.rng.random_bool(0.15) {
            return Vec::new();
        }
        let others_too = self.rng.random_bool(0.4);
        let had: Vec<_> = self
            .left
            .iter()
            .filter(|deposit| others_too || deposit.mailbox == *mailbox)
            .map(|Deposit { mailbox, key, .. }| Had { mailbox: mailbox.clone(), key: key.clone() })
            .collect();
        if had.is_empty() {
            return Vec::new();
        }
        vec![had[self.rng.random_range(0..had.len())].clone()]
    }
}

impl UnderWay {
    fn mailbox(&self) -> Option<&ServerName> {
        match &self.op {
            Op::Collect(_) => Some(&self.caller),
            Op::RelayTxn(asked) if asked.mailbox == self.caller => Some(&self.caller),
            _ => None,
        }
    }

    /// Does one step; whether it was the last.
    fn step(&mut self, relay: &mut Reference, rng: &mut StdRng) -> bool {
        match (&self.op, self.steps) {
            (Op::Deposit(deposit), 1) => {
                let is_refused = rng.random_bool(0.05);
                self.answer = if is_refused { Answer::Refused(429) } else { Answer::Deposited };
                if is_refused && relay.bug == Some(Bug::StoresWhatItRefuses) {
                    relay.deposit(deposit, &self.before_it);
                    relay.has_erred = true;
                } else if !is_refused {
                    relay.deposit(deposit, &self.before_it);
                }
            }
            (Op::Collect(asked), 1) => {
                relay.acknowledge(&self.caller, &asked.acknowledge);
                relay.acknowledge_copies(&self.caller, &asked.have);
            }
            (Op::Collect(asked), 2) => {
                let envelopes =
                    relay.collect(&self.caller, asked.after, asked.limit, asked.max_bytes);
                self.answer = Answer::Collected(Collected { envelopes, queued: None });
                return false;
            }
            (Op::Collect(_), 3) => {
                if let Answer::Collected(collected) = &mut self.answer {
                    collected.queued = Some(relay.queued(&self.caller));
                }
            }
            (Op::RelayTxn(asked), 1) if asked.mailbox != self.caller => {
                let serves = relay.bug == Some(Bug::ServesStrangers);
                relay.has_erred |= serves;
                self.answer = if serves {
                    Answer::Collected(Collected::default())
                } else {
                    Answer::Refused(403)
                };
            }
            (Op::RelayTxn(asked), 1) if asked.entry_id > 0 => {
                relay.acknowledge(
                    &asked.mailbox,
                    &[Acknowledged { id: asked.entry_id, sha256: None }],
                );
            }
            (Op::RelayTxn(asked), 2) if asked.mailbox == self.caller => {
                self.answer = Answer::Collected(without_key(relay.collect(
                    &self.caller,
                    0,
                    1,
                    u64::MAX >> 1,
                )));
            }
            (Op::Malformed(_), 1) => {
                let takes = relay.bug == Some(Bug::TakesAnything);
                relay.has_erred |= takes;
                self.answer = if takes { Answer::Deposited } else { Answer::Refused(400) };
            }
            _ => {}
        }
        self.steps >= 4
    }
}
