//! Reads configuration files, and says what is wrong with one, and where.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::de::DeserializeOwned;

/// Reads `file`. The error names file, line, key and what was expected.
pub(crate) fn read<T: DeserializeOwned>(file: &Path) -> anyhow::Result<T> {
    let text = fs::read_to_string(file)
        .with_context(|| format!("cannot read the configuration file {}", file.display()))?;
    toml::from_str(&text)
        .map_err(|error| anyhow::anyhow!("{}: {}", file.display(), error.to_string().trim_end()))
}
