//! Finds everything that is wrong with a configuration at once: its form, its keys, its values, and the files it names.

mod environment_values;
mod files;
mod finding;
mod form;
mod log;
mod node_values;
mod relay_values;

use std::path::Path;

use anyhow::Context as _;
use restante_node::NodeConfig;
use restante_relay::RelayConfig;
use serde::de::DeserializeOwned;
use toml::Table;
use toml::de::DeTable;

use crate::args::Program;
use crate::environment::{self, Override};
pub(crate) use finding::{Finding, Severity};
use finding::{Place, Remark};
use form::Read;

/// What a check found.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Whose configuration it is.
    pub(crate) program: Program,
    /// In the order of the file.
    pub(crate) findings: Vec<Finding>,
    /// Which keys the environment sets, with the variables' names.
    pub(crate) set_by_environment: Vec<(String, String)>,
}

impl Checked {
    /// How many findings keep the program from starting.
    pub(crate) fn errors(&self) -> usize {
        self.findings.iter().filter(|finding| finding.severity == Severity::Wrong).count()
    }
}

/// Checks `file`, under the environment's `variables`, as the configuration of `program`; without one, as that of the
/// program whose keys it has.
pub(crate) fn check(
    file: &Path,
    program: Option<Program>,
    variables: impl Iterator<Item = (String, String)>,
) -> anyhow::Result<Checked> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the configuration file {}", file.display()))?;
    let (table, errors) = DeTable::parse_recoverable(&text);
    let program = program.unwrap_or_else(|| whose(table.get_ref()));
    let mut findings: Vec<Finding> =
        errors.iter().map(|error| finding::of_syntax(&text, error)).collect();
    let overrides = match environment::overrides(program, variables) {
        Ok(overrides) => overrides,
        Err(error) => {
            findings.extend(error.to_string().lines().map(finding::of_environment));
            Vec::new()
        }
    };
    findings.extend(environment_values::check(program, &overrides));
    let form = form::Form { text: &text, table: &table, program, broken: !errors.is_empty() };
    let (wrong, remarks) = match program {
        Program::Relay => judged::<RelayConfig>(&form, &overrides, relay_values::remarks),
        Program::Node => judged::<NodeConfig>(&form, &overrides, node_values::remarks),
    };
    findings.extend(wrong);
    findings.extend(remarks.into_iter().map(|remark| placed(remark, &text, &table, &overrides)));
    findings.sort_by(|a, b| a.place.cmp(&b.place));
    findings.dedup();
    let set_by_environment = overrides.into_iter().map(|set| (set.path, set.variable)).collect();
    Ok(Checked { program, findings, set_by_environment })
}

/// What is wrong with the form, and what is to be said about the values that are set.
fn judged<C: DeserializeOwned>(
    form: &form::Form<'_>,
    overrides: &[Override],
    remarks: fn(&C) -> Vec<Remark>,
) -> (Vec<Finding>, Vec<Remark>) {
    let Read { config, findings, mended } = form.check::<C>(overrides);
    if let Some(config) = merged::<C>(form.text, overrides) {
        return (findings, remarks(&config));
    }
    // Something is wrong: of the rest, only what stands in the file is judged.
    let mut remarks = config.as_ref().map(remarks).unwrap_or_default();
    let is_set = |key: &str| {
        let mut others = mended.iter().chain(overrides.iter().map(|set| &set.path));
        others.all(|other| !is_within(key, other))
    };
    remarks.retain(|remark| is_set(&remark.key));
    (findings, remarks)
}

/// The configuration as the program would read it, if it would.
fn merged<C: DeserializeOwned>(text: &str, overrides: &[Override]) -> Option<C> {
    let mut table: Table = text.parse().ok()?;
    environment::apply(overrides.to_vec(), &mut table).ok()?;
    table.try_into().ok()
}

/// Whether `key` is `outer`, or in the section `outer`.
fn is_within(key: &str, outer: &str) -> bool {
    key.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// A node's file has sections that a relay's has not.
fn whose(table: &DeTable<'_>) -> Program {
    let is_nodes = |key: &str| ["homeserver", "outbound", "inbound"].contains(&key);
    if table.keys().any(|key| is_nodes(key.get_ref())) { Program::Node } else { Program::Relay }
}

/// A remark about a value, with the line or variable that the value comes from.
fn placed(
    remark: Remark,
    text: &str,
    table: &toml::Spanned<DeTable<'_>>,
    overrides: &[Override],
) -> Finding {
    let place = match overrides.iter().find(|set| is_within(&remark.key, &set.path)) {
        Some(set) => Place::Variable(set.variable.clone()),
        None => form::line_of_key(text, table.get_ref(), &remark.key)
            .map_or(Place::Default, Place::Line),
    };
    Finding { place, severity: remark.severity, text: format!("{}: {}", remark.key, remark.text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("restante.toml");
        let text = text.replace("FOLDER", folder.path().to_str().unwrap());
        std::fs::write(&file, text).unwrap();
        let variables =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let checked = check(&file, None, variables).unwrap();
        checked.findings.iter().map(ToString::to_string).collect()
    }

    /// Each expected text stands in the finding of its number, and there are no others.
    fn assert_found(found: &[String], expected: &[&str]) {
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{expected:?} is not in {found:?}");
        }
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once_with_its_line() {
        let found = checked(
            "listn = \"127.0.0.1:1\"\nserver_name = \"a b\"\n[limits]\nbody_bytes_max = \"many\"\nzzz = 1\n\
             [mailbox]\ntime_to_live = \"soon\"\n[tls]\ncertificate = \"/nowhere/chain.pem\"\n",
            &[],
        );
        assert_found(
            &found,
            &[
                "line 1: there is no key listn; did you mean listen?",
                "line 2: server_name: \"a b\" is not a Matrix server name",
                "line 4: limits.body_bytes_max: invalid type: string \"many\", expected usize",
                "line 5: there is no key limits.zzz; did you mean limits?",
                "line 7: mailbox.time_to_live: \"soon\" is not a length of time",
                "line 8: tls.key is missing",
            ],
        );
    }

    #[test]
    fn wrong_lines_hide_no_wrong_keys() {
        let found = checked("listen = 127.0.0.1\n[limits\nconnections_max = 1\nzzz = 1\n", &[]);
        assert!(found.len() >= 3, "{found:#?}");
        assert!(found[0].starts_with("line 1: "), "{found:#?}");
        assert!(found.iter().any(|found| found.contains("zzz")), "{found:#?}");
    }

    #[test]
    fn a_node_lacks_what_has_no_default_unless_the_environment_has_it() {
        let text =
            "server_name = \"a.example\"\nhomeserver = \"http://127.0.0.1:8008\"\n[outbound]\n";
        let found = checked(text, &[]);
        assert_found(&found, &["signing_key is missing", "line 3: outbound.secret is missing"]);
        let variables = [
            ("RESTANTE_NODE__OUTBOUND__SECRET", "s3cret"),
            ("RESTANTE_NODE__SIGNING_KEY", "/nowhere/signing.key"),
        ];
        let found = checked(text, &variables);
        assert_found(
            &found,
            &["RESTANTE_NODE__SIGNING_KEY: signing_key: cannot read /nowhere/signing.key"],
        );
    }

    #[test]
    fn every_variable_that_is_wrong_is_named() {
        let variables = [
            ("RESTANTE_RELAY__LISTN", "127.0.0.1:1"),
            ("RESTANTE_RELAY__LIMITS__CONNECTIONS_MAX", "many"),
            ("RESTANTE_RELAY__MAILBOX__TIME_TO_LIVE", "soon"),
        ];
        let found = checked("data = \"FOLDER\"\n", &variables[1..]);
        assert_found(
            &found,
            &[
                "RESTANTE_RELAY__LIMITS__CONNECTIONS_MAX: ",
                "RESTANTE_RELAY__MAILBOX__TIME_TO_LIVE: ",
            ],
        );
        let found = checked("data = \"FOLDER\"\n", &variables);
        assert!(found[0].contains("RESTANTE_RELAY__LISTN: there is no such key"), "{found:#?}");
    }

    #[test]
    fn files_that_can_not_be_read_are_named_with_their_lines() {
        let found = checked(
            "[tls]\ncertificate = \"/nowhere/chain.pem\"\nkey = \"/nowhere/key.pem\"\n\
             [federation]\nextra_ca_files = [\"/nowhere/ca.pem\"]\n",
            &[],
        );
        assert_found(
            &found,
            &[
                "line 2: tls.certificate: cannot read /nowhere/chain.pem",
                "line 3: tls.key: cannot read /nowhere/key.pem",
                "line 5: federation.extra_ca_files: cannot read /nowhere/ca.pem",
            ],
        );
    }

    #[test]
    fn a_wrong_entry_of_a_list_does_not_hide_the_next() {
        let found = checked(
            "[keys]\nnotaries = [\n  { server_name = \"a b\" },\n  { servername = \"a.example\" },\n]\n",
            &[],
        );
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found[0].starts_with("line 3: "), "{found:#?}");
        assert!(found[1].starts_with("line 4: "), "{found:#?}");
    }
}
