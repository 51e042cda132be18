//! Where a running program's configuration is read again: its file, the environment, and its command line.

use std::path::PathBuf;

use restante_node::NodeConfig;
use restante_operators::{ConfigSource, FreshConfig};
use restante_relay::RelayConfig;
use toml::{Table, Value};

use crate::args::{Program, RelayOptions};
use crate::config_file;

/// A relay's configuration, as its command line says.
pub(crate) struct RelaySource(pub(crate) RelayOptions);

/// A node's configuration, in this file.
pub(crate) struct NodeSource(pub(crate) PathBuf);

impl ConfigSource<RelayConfig> for RelaySource {
    fn read(&self) -> Result<FreshConfig<RelayConfig>, String> {
        let options = &self.0;
        let read = || {
            let mut config = options.config.read()?;
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
}

impl ConfigSource<NodeConfig> for NodeSource {
    fn read(&self) -> Result<FreshConfig<NodeConfig>, String> {
        let read = || {
            let config = config_file::node(&self.0)?;
            anyhow::Ok(FreshConfig {
                config,
                keys: config_file::keys(Program::Node, Some(&self.0))?,
            })
        };
        read().map_err(|error| format!("{error:#}"))
    }
}

fn set(keys: &mut Table, key: &str, value: &str) {
    keys.insert(key.to_owned(), Value::String(value.to_owned()));
}
