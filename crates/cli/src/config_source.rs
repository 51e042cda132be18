//! Where a running program's configuration is read again: its file, the environment, and its command line.

use std::path::PathBuf;

use anyhow::Context as _;
use restante_node::NodeConfig;
use restante_operators::{ConfigSource, FreshConfig, LogSection};
use restante_relay::RelayConfig;
use toml::{Table, Value};

use crate::args::{Program, RelayOptions};
use crate::config_file;
use crate::logging::{self, LogFilter};

/// A relay's configuration, as its command line says.
pub(crate) struct RelaySource {
    pub(crate) options: RelayOptions,
    pub(crate) log: LogFilter,
}

/// A node's configuration, in this file.
pub(crate) struct NodeSource {
    pub(crate) file: PathBuf,
    pub(crate) log: LogFilter,
}

impl ConfigSource<RelayConfig> for RelaySource {
    fn read(&self) -> Result<FreshConfig<RelayConfig>, String> {
        let options = &self.options;
        let read = || {
            let mut config = options.config.read()?;
            logging::parsed(&config.log.filter).context("log.filter")?;
            let mut keys = config_file::keys(Program::Relay, options.config.file.as_deref())?;
            // What the command line says goes before the file, and does not change with it.
            if let Some(listen) = options.listen {
                config.listen = listen;
                set(&mut keys, "listen", &listen.to_string());
            }
            if let Some(data) = &options.config.data {
                set(&mut keys, "data", &data.to_string_lossy());
            }
            anyhow::Ok(FreshConfig { config, keys })
        };
        read().map_err(|error| format!("{error:#}"))
    }

    fn took_effect(&self, config: &RelayConfig) {
        follow(&self.log, &config.log);
    }
}

impl ConfigSource<NodeConfig> for NodeSource {
    fn read(&self) -> Result<FreshConfig<NodeConfig>, String> {
        let read = || {
            let config = config_file::node(&self.file)?;
            logging::parsed(&config.log.filter).context("log.filter")?;
            anyhow::Ok(FreshConfig {
                config,
                keys: config_file::keys(Program::Node, Some(&self.file))?,
            })
        };
        read().map_err(|error| format!("{error:#}"))
    }

    fn took_effect(&self, config: &NodeConfig) {
        follow(&self.log, &config.log);
    }
}

/// The filter was looked at when it was read.
fn follow(log: &LogFilter, section: &LogSection) {
    if let Err(error) = log.follow(&section.filter) {
        tracing::error!(error = format!("{error:#}"), "what is logged stays as it was");
    }
}

fn set(keys: &mut Table, key: &str, value: &str) {
    keys.insert(key.to_owned(), Value::String(value.to_owned()));
}
