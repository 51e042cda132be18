//! Finds every variable of the environment whose value its key does not take.

use restante_node::NodeConfig;
use restante_relay::RelayConfig;
use serde::de::DeserializeOwned;
use toml::Table;

use super::finding::{Finding, Place, Severity};
use crate::args::Program;
use crate::documented_keys;
use crate::environment::{self, Override};

/// Each by itself over the defaults, so that one mistake does not hide another.
pub(super) fn check(program: Program, overrides: &[Override]) -> Vec<Finding> {
    let read = match program {
        Program::Relay => refusal::<RelayConfig>,
        Program::Node => refusal::<NodeConfig>,
    };
    let wrong = |set: &Override| {
        let text = read(program, set)?;
        let place = Place::Variable(set.variable.clone());
        Some(Finding { place, severity: Severity::Wrong, text })
    };
    overrides.iter().filter_map(wrong).collect()
}

fn refusal<C: DeserializeOwned>(program: Program, set: &Override) -> Option<String> {
    let mut table: Table = documented_keys::generated(program).parse().ok()?;
    if let Err(error) = environment::apply(vec![set.clone()], &mut table) {
        return Some(error.to_string());
    }
    let refused = table.try_into::<C>().err()?;
    Some(format!("{}: {}", set.path, refused.message()))
}
