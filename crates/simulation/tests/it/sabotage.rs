//! What is broken on purpose is noticed.

use restante_simulation::{Options, Sabotage, run};

/// Seeds of which at least one must notice.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=30;

/// Whether a seed of a sabotaged world fails with such a text.
fn is_noticed(sabotage: Sabotage, text: &str) -> bool {
    let options = Options { sabotage: Some(sabotage), ..Options::default() };
    SEEDS
        .into_iter()
        .any(|seed| run(seed, options).failures.iter().any(|failure| failure.contains(text)))
}

#[test]
fn a_node_that_believes_what_no_relay_said_is_noticed() {
    assert!(is_noticed(Sabotage::DepositsGoNowhere, "and nobody took it"));
}

#[test]
fn relays_that_forget_what_they_took_are_noticed() {
    assert!(is_noticed(Sabotage::RelaysForget, "does not have"));
}

#[test]
fn homeservers_that_forget_what_they_took_are_noticed() {
    assert!(is_noticed(Sabotage::HomeserversForget, "does not have “message"));
}
