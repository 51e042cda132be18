//! Each write, sync, truncation, deletion, opening and reading of the disk fails in turn.

use restante_sqlite_faults::{Campaign, Fault, Lasts, Operation, Tally, Trouble, fail_in_turn};

use super::call::Call;
use super::due;
use super::trial::{Outcome, Trial};
use crate::StoreError;

/// Steps of the script before and after a restart.
const STEPS: u32 = 8;

/// Among the other tests every so many-th operation fails; by the command each.
const STRIDE: usize = 13;

/// The script of `seed` on a disk with `fault`.
async fn play(seed: u64, fault: Fault) -> Outcome<Tally> {
    let mut trial = Trial::new(seed, None);
    trial.disk().fail(fault);
    start(&mut trial).await?;
    steps(&mut trial, fault).await?;
    trial.stop();
    start(&mut trial).await?;
    steps(&mut trial, fault).await?;
    trial.disk().heal();
    trial.nothing_unanswered_is_there().await?;
    is_usable(&mut trial).await?;
    trial.tally.faults = trial.disk().failed();
    if seed.is_multiple_of(2) {
        trial.lose_power();
    } else {
        trial.stop();
    }
    trial.start_again().await?;
    Ok(trial.tally)
}

/// A start that fails, fails for the disk's sake, and succeeds on a disk that was mended.
async fn start(trial: &mut Trial) -> Outcome<()> {
    if !trial.start().await {
        if trial.disk().failed() == 0 {
            return Err(trial.tale("the store does not start, and nothing is wrong with the disk"));
        }
        trial.disk().heal();
        return trial.start_again().await;
    }
    if trial.disk().failed() > 0 {
        trial.disk().heal();
    }
    trial.after_start().await
}

async fn steps(trial: &mut Trial, fault: Fault) -> Outcome<()> {
    for _ in 0..STEPS {
        let failed_before = trial.errors.len();
        if trial.step().await? {
            continue;
        }
        if trial.disk().failed() == 0 {
            return Err(trial.tale("a call failed, and nothing is wrong with the disk"));
        }
        let is_full = fault.trouble == Trouble::Full && fault.operation == Some(Operation::Write);
        let told = trial.errors[failed_before..].iter();
        if let Some(other) =
            told.clone().find(|error| matches!(error, StoreError::DiskFull) != is_full)
        {
            return Err(trial.tale(&format!("the caller was told {other:?}")));
        }
        if fault.lasts == Lasts::Once {
            trial.nothing_unanswered_is_there().await?;
        }
    }
    Ok(())
}

/// Expiry takes the reserve back; then everything is taken.
async fn is_usable(trial: &mut Trial) -> Outcome<()> {
    let expiry = Call::Expire(due(0), 1);
    let calls = [expiry, trial.mail(), trial.acknowledgement(), trial.collect()];
    for call in calls {
        if !trial.call(vec![call]).await? {
            return Err(trial.tale("the store is not usable on a disk that was mended"));
        }
    }
    Ok(())
}

#[test]
fn disk_faults_are_told_take_nothing_that_was_answered_and_are_over_when_they_are_over() {
    let campaign = Campaign::of("disk", 1);
    let stride = if campaign.is_in_full() { 1 } else { STRIDE };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    campaign.run("mailboxes", |seed| {
        fail_in_turn(seed, stride, |fault| runtime.block_on(play(seed, fault)))
    });
}
