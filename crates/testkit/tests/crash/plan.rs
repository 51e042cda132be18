//! How often to kill and with which seed, as the environment says.

/// Kills of relays in the ordinary run of the tests.
const RELAY_KILLS: usize = 30;
/// Kills of nodes there, each of which takes longer.
const NODE_KILLS: usize = 10;
/// Where the number of kills is given, one in so many is a node's.
const RELAY_KILLS_PER_NODE_KILL: usize = 5;

/// Kills of relays.
const COUNT_VARIABLE: &str = "RESTANTE_COUNT";
/// What everything is drawn from; random without.
const SEED_VARIABLE: &str = "RESTANTE_SEED";

pub(crate) fn relay_kills() -> usize {
    number(COUNT_VARIABLE).unwrap_or(RELAY_KILLS)
}

pub(crate) fn node_kills() -> usize {
    let count: Option<usize> = number(COUNT_VARIABLE);
    count.map_or(NODE_KILLS, |count| count.div_ceil(RELAY_KILLS_PER_NODE_KILL))
}

pub(crate) fn seed() -> u64 {
    number(SEED_VARIABLE).unwrap_or_else(|| rand::random::<u32>().into())
}

/// What repeats the choices of a run that failed; the moments of the kills it can only repeat roughly.
pub(crate) fn repeat(seed: u64) -> String {
    format!("repeat with: cargo xtask crash --count 100 --seed {seed}")
}

fn number<T: std::str::FromStr>(variable: &str) -> Option<T> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse().ok();
    Some(number.unwrap_or_else(|| panic!("{variable} is {text:?}, which is no number")))
}
