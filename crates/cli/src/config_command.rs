//! `restante config generate`, `restante config check` and `restante config reload`.

use std::path::Path;
use std::process::ExitCode;

use crate::args::ConfigAction;
use crate::config_check::{self, Checked};
use crate::{config_file, documented_keys, reload_command};

/// Carries out one command.
pub(crate) async fn run(action: ConfigAction) -> anyhow::Result<ExitCode> {
    match action {
        ConfigAction::Generate { program } => print!("{}", documented_keys::generated(program)),
        ConfigAction::Check { file, program } => {
            let checked = config_check::check(&file, program, config_file::variables())?;
            println!("{}", report(&file, &checked));
            if checked.errors() > 0 {
                return Ok(ExitCode::FAILURE);
            }
        }
        ConfigAction::Reload(subject) => reload_command::run(subject).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn report(file: &Path, checked: &Checked) -> String {
    let (name, file) = (checked.program.name(), file.display());
    let mut lines: Vec<String> = checked.findings.iter().map(|found| found.line(&file)).collect();
    let verdict = match checked.errors() {
        0 => format!("{file} is a good configuration of a {name}"),
        1 => format!("{file} is not a configuration of a {name} yet: correct what is said above"),
        count => format!(
            "{file} is not a configuration of a {name} yet: correct the {count} things that are said above"
        ),
    };
    lines.push(verdict);
    let set = checked.set_by_environment.iter();
    lines.extend(set.map(|(path, variable)| format!("{path} is set by {variable}")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use restante_node::NodeConfig;
    use restante_relay::{RelayConfig, Serve};
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::args::Program;
    use crate::documented_keys::Reloaded;

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
        let mut generated: RelayConfig = toml::from_str(RELAY).unwrap();
        // Who takes the trouble to write a file wants more than a try on loopback.
        assert_eq!(generated.serve, Serve::Invited);
        generated.serve = RelayConfig::default().serve;
        assert_eq!(format!("{generated:?}"), format!("{:?}", RelayConfig::default()));
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
    fn every_key_of_a_generated_file_says_whether_it_reloads() {
        for program in [Program::Relay, Program::Node] {
            let keys = documented_keys::all(program);
            let is_section =
                |path: &str| keys.iter().any(|key| key.path.starts_with(&format!("{path}.")));
            for key in &keys {
                assert!(key.reload.is_some() || is_section(&key.path), "{key:?}");
            }
        }
    }

    #[test]
    fn the_generated_files_promise_of_each_key_what_the_programs_keep() {
        for (program, reloaded) in [
            (Program::Relay, restante_relay::RELOADED_KEYS),
            (Program::Node, restante_node::RELOADED_KEYS),
        ] {
            for key in documented_keys::all(program) {
                let Some(promised) = key.reload else { continue };
                let kept = restante_operators::is_applicable(reloaded, &key.path);
                assert_eq!(promised == documented_keys::Reloaded::Yes, kept, "{}", key.path);
            }
        }
    }

    /// What a running program takes up, by its own word, is what its file says.
    #[test]
    fn the_remarks_on_reloading_are_true() {
        let programs = [
            (Program::Relay, restante_relay::RELOADED_KEYS),
            (Program::Node, restante_node::RELOADED_KEYS),
        ];
        for (program, reloaded) in programs {
            let is_reloaded = |path: &str| {
                reloaded.iter().any(|key| {
                    path.strip_prefix(key)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
                })
            };
            for key in documented_keys::all(program) {
                let Some(said) = key.reload else { continue };
                assert_eq!(said == Reloaded::Yes, is_reloaded(&key.path), "{}", key.path);
            }
        }
    }

    #[test]
    fn a_check_counts_what_is_wrong_and_names_the_file_with_each() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("relay.toml");
        fs::write(&file, "listn = 1\n[mailbox]\ntime_to_live = \"soon\"\n").unwrap();
        let checked = config_check::check(&file, None, std::iter::empty()).unwrap();
        let text = report(&file, &checked);
        assert!(text.contains("relay.toml: line 1: there is no key listn"), "{text}");
        assert!(text.ends_with("correct the 2 things that are said above"), "{text}");
    }

    #[test]
    fn the_generated_relay_file_is_a_good_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("relay.toml");
        fs::write(&file, RELAY).unwrap();
        let checked = config_check::check(&file, None, std::iter::empty()).unwrap();
        assert!(checked.findings.is_empty(), "{}", report(&file, &checked));
    }
}
