//! The program under test, with a configuration file.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Program;

/// Filter of the logs of relays and nodes.
const LOG_FILTER: &str = "info,restante=debug,restante_relay=debug,restante_node=debug";

/// Overrides [`LOG_FILTER`].
const LOG_VARIABLE: &str = "RESTANTE_TEST_LOG";

/// `restante COMMAND` with `config` as its configuration file.
///
/// # Panics
///
/// When the environment does not name the program.
pub(crate) fn restante(name: &str, directory: &Path, command: &str, config: &Value) -> Program {
    let file = directory.join(format!("{command}.toml"));
    let text = toml::to_string(config).expect("the harness writes no nulls");
    std::fs::write(&file, text).expect("the test's folder is writable");
    let log = std::env::var(LOG_VARIABLE).unwrap_or_else(|_| LOG_FILTER.to_owned());
    Program {
        name: name.to_owned(),
        executable: executable(),
        arguments: vec![command.into(), "--config".into(), file.into(), "--log".into(), log.into()],
        directory: directory.to_owned(),
        log: directory.join(format!("{command}.log")),
    }
}

fn executable() -> PathBuf {
    let named = std::env::var_os("RESTANTE_BIN");
    named.expect("RESTANTE_BIN is not set; run `cargo xtask test`, which builds the program").into()
}
