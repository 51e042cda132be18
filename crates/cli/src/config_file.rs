//! Reads configuration files and what the environment sets over them, and says what is wrong, and where.

use std::path::Path;
use std::{env, fs};

use anyhow::Context as _;
use restante_node::NodeConfig;
use restante_relay::RelayConfig;
use serde::de::DeserializeOwned;
use toml::Table;

use crate::args::Program;
use crate::environment;

/// A relay's configuration; without a file everything has a default.
pub(crate) fn relay(file: Option<&Path>) -> anyhow::Result<RelayConfig> {
    read(Program::Relay, file)
}

/// A node's configuration.
pub(crate) fn node(file: &Path) -> anyhow::Result<NodeConfig> {
    read(Program::Node, Some(file))
}

/// Every key that the file and the environment set.
pub(crate) fn keys(program: Program, file: Option<&Path>) -> anyhow::Result<Table> {
    let mut table = file.map_or_else(|| Ok(Table::new()), parse)?;
    environment::apply(environment::overrides(program, variables())?, &mut table)?;
    Ok(table)
}

/// What the file says, without the environment. The error names file, line, key and what was expected.
pub(crate) fn parse<T: DeserializeOwned>(file: &Path) -> anyhow::Result<T> {
    let text = fs::read_to_string(file)
        .with_context(|| format!("cannot read the configuration file {}", file.display()))?;
    toml::from_str(&text)
        .map_err(|error| anyhow::anyhow!("{}: {}", file.display(), error.to_string().trim_end()))
}

/// The environment's variables; one that is not UTF-8 keeps its name, and is wrong by its value if it is one of ours.
pub(crate) fn variables() -> impl Iterator<Item = (String, String)> {
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    env::vars_os().map(move |(name, value)| (lossy(name), lossy(value)))
}

fn read<T: DeserializeOwned>(program: Program, file: Option<&Path>) -> anyhow::Result<T> {
    let overrides = environment::overrides(program, variables())?;
    if let (true, Some(file)) = (overrides.is_empty(), file) {
        return parse(file);
    }
    let mut table = file.map_or_else(|| Ok(Table::new()), parse)?;
    let names: Vec<_> = overrides.iter().map(|set| set.variable.clone()).collect();
    environment::apply(overrides, &mut table)?;
    table.try_into().map_err(|error| {
        let file = file.map_or_else(|| "no file".to_owned(), |file| file.display().to_string());
        anyhow::anyhow!("{file}, with {}: {}", names.join(", "), error.to_string().trim_end())
    })
}
