//! Whether a deposit costs more the more is stored.

use std::path::Path;

use clap::Args;
use restante_federation_proto::ServerName;

use crate::figures::{self, Figure, Target, Unit};
use crate::limits::Limit;
use crate::mail::{Beside, strangers};
use crate::numbers::median;
use crate::schedule::turn_of;
use crate::stage::Stage;

/// What is stored at the first look.
const FIRST: usize = 1000;

/// Connections at once.
const CONNECTIONS: usize = 64;

/// Deposits of a turn at least: fewer are noise. The first turns make much of what is stored then.
const TURN_MIN: usize = 500;

/// What one may cost, of one at the first look: less than a tenth is the machine's own.
const COST: f64 = 1.1;

/// How much is stored.
#[derive(Debug, Args)]
pub(crate) struct Growth {
    /// Envelopes at the last look; there is one at each power of ten from 1000 on
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1000..))]
    envelopes: u32,
    /// Bytes of each
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=0x10_0000))]
    bytes: u32,
    /// Mailboxes that they are spread over
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    mailboxes: u32,
    /// Seconds of each turn
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Turns at each look
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    turns: u16,
}

/// One look.
struct Look {
    stored: usize,
    relay: f64,
    verify: f64,
}

/// Fills a relay, measures at each power of ten, and prints the table.
pub(crate) async fn run(program: &Path, growth: &Growth) -> anyhow::Result<()> {
    let stage = Stage::open(program).await?;
    let mailboxes = strangers(growth.mailboxes as usize);
    let mut looks = Vec::new();
    let mut stored = 0;
    for wanted in powers_of_ten(growth.envelopes as usize) {
        let missing = wanted.saturating_sub(stored);
        stage.fill(missing, growth.bytes as usize, &mailboxes).await?;
        stored += missing;
        let (look, added) = look(&stage, growth, &mailboxes, stored).await?;
        println!("{stored} stored: {:.0} deposits/s, verify {:.0}/s", look.relay, look.verify);
        stored += added;
        looks.push(look);
    }
    println!();
    println!(
        "Deposits of {} bytes into {} mailboxes; costs are told beside what verifying cost at the same time.",
        growth.bytes, growth.mailboxes
    );
    figures::print(&rows(&looks));
    Ok(())
}

/// From [`FIRST`] to `last`.
fn powers_of_ten(last: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(FIRST), |power| power.checked_mul(10))
        .take_while(move |power| *power <= last)
}

/// Turns of relay and verification; how many deposits they left as well.
async fn look(
    stage: &Stage,
    growth: &Growth,
    mailboxes: &[ServerName],
    stored: usize,
) -> anyhow::Result<(Look, usize)> {
    let bytes = growth.bytes as usize;
    let (mut relay, mut verify, mut added) = (Vec::new(), Vec::new(), 0);
    let mut count = TURN_MIN;
    for _ in 0..growth.turns {
        let deposits = stage.writers.deposits(count, bytes, mailboxes, Beside::Nothing)?;
        relay.push(stage.ask_relay(CONNECTIONS, &deposits).await?.rate());
        verify.push(stage.ask_limit(Limit::Verify, CONNECTIONS, &deposits).await?.rate());
        added += count;
        let wanted = turn_of(median(&relay), growth.seconds, bytes);
        count = wanted.min(stored / 10).max(TURN_MIN);
    }
    Ok((Look { stored, relay: median(&relay), verify: median(&verify) }, added))
}

fn rows(looks: &[Look]) -> Vec<Figure> {
    let Some(first) = looks.first() else { return Vec::new() };
    let cost = |look: &Look| look.verify / look.relay;
    let rates = looks.iter().map(|look| {
        let what = format!("deposits, stored: {}", look.stored);
        Figure::alone(what, Unit::PerSecond, look.relay).beside("verify", look.verify)
    });
    let costs = looks.iter().skip(1).map(|look| {
        let what = format!("cost of one at {}, of that at {FIRST}", look.stored);
        Figure::alone(what, Unit::Times, cost(look) / cost(first)).wanted(Target::AtMost(COST))
    });
    rates.chain(costs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_look_at_each_power_of_ten() {
        assert_eq!(powers_of_ten(999).count(), 0);
        assert_eq!(
            powers_of_ten(1_000_000).collect::<Vec<_>>(),
            [1000, 10_000, 100_000, 1_000_000]
        );
    }

    #[test]
    fn a_machine_that_slows_down_as_a_whole_makes_no_deposit_dearer() {
        let look = |stored, relay, verify| Look { stored, relay, verify };
        let rows = rows(&[
            look(1000, 400.0, 800.0),
            look(10_000, 200.0, 400.0),
            look(100_000, 200.0, 800.0),
        ]);
        let costs: Vec<_> = rows[3..].iter().map(|row| row.value).collect();
        assert!((costs[0] - 1.0).abs() < 1e-9, "{costs:?}");
        assert!((costs[1] - 2.0).abs() < 1e-9, "{costs:?}");
    }
}
