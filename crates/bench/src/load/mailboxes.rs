//! What many mailboxes cost: deposits into each of them, beside deposits into one, where as much is stored.

use std::path::Path;

use rand::RngExt as _;
use restante_federation_proto::ServerName;

use super::Load;
use crate::figures::{Figure, Target, Unit};
use crate::mail::{Beside, strangers};
use crate::numbers::median;
use crate::schedule::turn_of;
use crate::stage::Stage;

/// Bodies in the turns, bytes.
const BODY_BYTES: usize = 4096;

/// Bodies of what lies there before, bytes.
const STORED_BYTES: usize = 1024;

/// What many may cost more than one: a fifth.
const SHARE: f64 = 1.0 / 1.2;

/// A relay, and whom its mail is for.
struct Subject {
    stage: Stage,
    mailboxes: Vec<ServerName>,
    rates: Vec<f64>,
}

pub(super) async fn measure(program: &Path, load: &Load) -> anyhow::Result<Vec<Figure>> {
    let most = load.mailboxes as usize;
    let mut subjects = Vec::new();
    let mut rate = 0.0;
    let mut counts = vec![1, most / 100, most];
    counts.dedup();
    for count in counts {
        let (stage, mailboxes) = (Stage::open(program).await?, strangers(count));
        rate = stage.fill(most, STORED_BYTES, &mailboxes).await?;
        subjects.push(Subject { stage, mailboxes, rates: Vec::new() });
    }
    let count = turn_of(rate, load.seconds, BODY_BYTES);
    for _ in load.turns() {
        for subject in &mut subjects {
            subject.turn(count, load.connections()).await?;
        }
    }
    let one = median(&subjects[0].rates);
    let figures = subjects.iter().map(|subject| {
        let mailboxes = subject.mailboxes.len();
        let what = format!("deposits, {} KiB, mailboxes: {mailboxes}", BODY_BYTES / 1024);
        let figure = Figure::alone(what, Unit::PerSecond, median(&subject.rates));
        if mailboxes == 1 {
            return figure;
        };
        figure.beside("one mailbox", one).wanted(Target::ShareAtLeast(SHARE))
    });
    Ok(figures.collect())
}

impl Subject {
    async fn turn(&mut self, count: usize, connections: usize) -> anyhow::Result<()> {
        let mut rng = rand::rng();
        let any =
            (0..count).map(|_| self.mailboxes[rng.random_range(0..self.mailboxes.len())].clone());
        let recipients: Vec<_> = any.collect();
        let requests =
            self.stage.writers.deposits(count, BODY_BYTES, &recipients, Beside::Nothing)?;
        self.rates.push(self.stage.ask_relay(connections, &requests).await?.rate());
        Ok(())
    }
}
