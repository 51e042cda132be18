//! `restante config generate` and `restante config check`.

use std::path::Path;

use crate::args::{ConfigAction, Program};
use crate::{config_file, documented_keys, environment};

/// Carries out one command.
pub(crate) fn run(action: ConfigAction) -> anyhow::Result<()> {
    match action {
        ConfigAction::Generate { program } => print!("{}", documented_keys::generated(program)),
        ConfigAction::Check { file } => println!("{}", check(&file)?),
    }
    Ok(())
}

/// A node's file has the key `homeserver`, which a relay's has not.
fn check(file: &Path) -> anyhow::Result<String> {
    let table: toml::Table = config_file::parse(file)?;
    let is_node = ["homeserver", "outbound", "inbound"].iter().any(|key| table.contains_key(*key));
    let (program, name) = if is_node {
        config_file::node(file)?;
        (Program::Node, "node")
    } else {
        config_file::relay(Some(file))?;
        (Program::Relay, "relay")
    };
    let mut text = format!("{} is a good configuration of a {name}", file.display());
    for set in environment::overrides(program, config_file::variables())? {
        text.push_str(&format!("\n{} is set by {}", set.path, set.variable));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use restante_node::NodeConfig;
    use restante_relay::{RelayConfig, Serve};
    use serde::de::DeserializeOwned;

    use super::*;

    const RELAY: &str = include_str!("generated/relay.toml");
    const NODE: &str = include_str!("generated/node.toml");

    /// The keys that a section knows, as serde lists them when it meets one that it does not know.
    fn known_keys<T: DeserializeOwned>(text_with_unknown_key: &str) -> Vec<String> {
        let Err(error) = toml::from_str::<T>(text_with_unknown_key) else {
            panic!("an unknown key was taken: {text_with_unknown_key}")
        };
        let message = error.message().to_owned();
        let (_, expected) = message.split_once("expected").unwrap_or_else(|| panic!("{message}"));
        expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    fn assert_documented<T: DeserializeOwned>(generated: &str, unknown: &str) {
        for key in known_keys::<T>(unknown) {
            let documented = generated.lines().map(|line| line.trim_start_matches(['#', ' ']));
            let mut documented = documented.filter(|line| {
                line.starts_with(&format!("{key} ="))
                    || *line == format!("[{key}]")
                    || line.ends_with(&format!(".{key}]"))
            });
            assert!(documented.next().is_some(), "{key} is not in the generated file");
        }
    }

    #[test]
    fn the_generated_relay_file_holds_every_key_with_its_default() {
        let generated: RelayConfig = toml::from_str(RELAY).unwrap();
        // Whoever writes a file is about to put the relay where others reach it.
        let expected = RelayConfig { serve: Serve::Invited, ..RelayConfig::default() };
        assert_eq!(format!("{generated:?}"), format!("{expected:?}"));
        for unknown in [
            "zzz = 1",
            "[limits]\nzzz = 1",
            "[mailbox]\nzzz = 1",
            "[storage]\nzzz = 1",
            "[at_rest]\nzzz = 1",
            "[operators]\nzzz = 1",
            "[federation]\nzzz = 1",
            "[keys]\nzzz = 1",
            "[tls]\nzzz = 1",
        ] {
            assert_documented::<RelayConfig>(RELAY, unknown);
        }
    }

    #[test]
    fn each_key_of_a_relay_says_whether_it_is_taken_up_while_the_relay_runs() {
        let mut remark = None;
        for line in RELAY.lines() {
            if let Some(said) = line.strip_prefix("# Reload: ") {
                assert!(matches!(said, "yes" | "no"), "{line}");
                remark = Some(said);
            }
            let is_key =
                |line: &str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
            if is_key(line) {
                assert!(remark.take().is_some(), "no remark on reloading before {line}");
            }
        }
    }

    #[test]
    fn the_generated_node_file_holds_every_key_with_its_default() {
        let generated: NodeConfig = toml::from_str(NODE).unwrap();
        let required = "server_name = \"example.org\"\nsigning_key = \"/etc/matrix-synapse/homeserver.signing.key\"\n\
             homeserver = \"http://127.0.0.1:8008\"\n[outbound]\nsecret = \"change me\"\n";
        let minimal: NodeConfig = toml::from_str(required).unwrap();
        assert_eq!(format!("{generated:?}"), format!("{minimal:?}"));
        let sections = [
            "outbound",
            "inbound",
            "inbound.tls",
            "admin",
            "delivery",
            "collect",
            "inbox",
            "federation",
            "keys",
        ];
        assert_documented::<NodeConfig>(NODE, "zzz = 1");
        for section in sections {
            assert_documented::<NodeConfig>(NODE, &format!("[{section}]\nzzz = 1"));
        }
    }

    #[test]
    fn check_names_file_line_and_what_was_expected() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("relay.toml");
        fs::write(&file, "[mailbox]\ntime_to_live = \"soon\"\n").unwrap();
        let error = check(&file).unwrap_err().to_string();
        assert!(error.contains("relay.toml"), "{error}");
        assert!(error.contains("line 2"), "{error}");
        assert!(error.contains("is not a length of time such as"), "{error}");
        fs::write(&file, "listn = \"127.0.0.1:1\"\n").unwrap();
        let error = check(&file).unwrap_err().to_string();
        assert!(error.contains("listn") && error.contains("listen"), "{error}");
    }
}
