//! Right passes, wrong is found, and the story is short.

use restante_checker::{Allowance, Call, Failure, check, verdict};

use crate::bug::Bug;
use crate::schedule::history;

const SEEDS: u64 = 300;
const SEEDS_PER_BUG: u64 = 40;
const STORIES_PER_BUG: usize = 4;

/// Calls of a story: those that make it, and one or two that say why nothing else explains it.
const STORY_CALLS_MAX: usize = 9;

#[test]
fn a_relay_that_is_right_passes_however_its_calls_interleave() {
    let mut envelopes = 0;
    for seed in 0..SEEDS {
        let (history, _) = history(seed, None);
        match verdict(&history, &Allowance::default()) {
            Ok(summary) => envelopes += summary.envelopes,
            Err(failure) => panic!("seed {seed}: {failure}"),
        }
    }
    assert!(envelopes > 10 * SEEDS as usize);
}

#[test]
fn every_bug_is_found_and_told_in_a_few_calls() {
    for bug in Bug::ALL {
        let runs = (0..SEEDS_PER_BUG).map(|seed| (seed, history(seed, Some(bug))));
        let harmed: Vec<_> = runs.filter(|(_, (_, has_erred))| *has_erred).collect();
        let is_found = |history: &[Call]| !check(history, &Allowance::default()).is_empty();
        let found: Vec<_> = harmed.iter().filter(|(_, (history, _))| is_found(history)).collect();
        // Some harm nobody can see: the answer was lost, or the mail acknowledged in the same moment.
        let enough = harmed.len() >= 10 && found.len() * 2 > harmed.len();
        assert!(enough, "{bug:?} did harm in {} runs, {} found", harmed.len(), found.len());
        for (seed, (history, _)) in found.into_iter().take(STORIES_PER_BUG) {
            let failure = verdict(history, &Allowance::default()).expect_err("it was found");
            check_story(bug, *seed, &failure);
        }
    }
}

fn check_story(bug: Bug, seed: u64, failure: &Failure) {
    assert!(
        failure.violation.is_about_counts() || failure.story.len() <= STORY_CALLS_MAX,
        "{bug:?} with seed {seed} takes {} calls: {failure}",
        failure.story.len()
    );
}
