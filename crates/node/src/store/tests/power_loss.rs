//! Power lost at random moments, in the middle of commits, of moving the log, of starting and of closing.

use rand::RngExt as _;
use restante_sqlite_faults::{Campaign, Lie, Tally};

use super::trial::{Outcome, Trial};

/// Losses of one database, one after the other.
const LOSSES: u32 = 4;

/// Steps between two losses at most.
const STEPS_MAX: u32 = 25;

/// What `seed` does to one database.
async fn play(seed: u64, lie: Option<Lie>) -> Outcome<Tally> {
    let mut trial = Trial::new(seed, lie).await;
    for _ in 0..LOSSES {
        let change = trial.rng.random_range(1..300);
        trial.disk().cut_power_at(change);
        if trial.is_started() || trial.start().await {
            until_power_is_lost(&mut trial).await?;
        }
        trial.lose_power();
        if trial.rng.random_bool(0.3) {
            // Again while it recovers.
            let change = trial.rng.random_range(1..20);
            trial.disk().cut_power_at(change);
            trial.start().await;
            trial.lose_power();
        }
        trial.start_again().await?;
    }
    Ok(trial.tally)
}

async fn until_power_is_lost(trial: &mut Trial) -> Outcome<()> {
    for _ in 0..STEPS_MAX {
        let answered = trial.step(4).await?;
        if trial.disk().is_off() {
            return Ok(());
        }
        if !answered {
            return Err(trial.tale("a call failed, and nothing is wrong with the disk"));
        }
        if trial.rng.random_bool(0.05) {
            trial.stop();
            if !trial.start().await {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn run(seed: u64, lie: Option<Lie>) -> Outcome<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(play(seed, lie))
}

#[test]
fn power_loss_takes_nothing_that_was_answered_and_leaves_nothing_half_done() {
    Campaign::of("powerloss", 60).run("a node's inbox and ledger", |seed| run(seed, None));
}

#[test]
fn power_loss_under_a_database_that_answers_before_the_disk_has_it_is_noticed() {
    for lie in [Lie::Log, Lie::Everything] {
        let noticed = (0..20).filter(|seed| run(*seed, Some(lie)).is_err()).count();
        assert!(noticed > 10, "{lie:?}: noticed with {noticed} seeds of 20");
    }
}
