//! Configuration from the environment: `RESTANTE_RELAY__LIMITS__BODY_BYTES_MAX` sets `limits.body_bytes_max` of a relay.
//!
//! Values are TOML; what isn't is a plain string. Pure apart from secrets' files.

use std::fs;

use anyhow::{Context as _, bail};
use toml::{Table, Value};

use crate::args::Program;
use crate::documented_keys::{self, DocumentedKey};

/// Keys whose value may stand in a file that `…_FILE` names, as systemd credentials and container secrets do.
const SECRETS: [&str; 1] = ["outbound.secret"];

/// One key that the environment sets.
#[derive(Debug, Clone)]
pub(crate) struct Override {
    /// The variable's name.
    pub(crate) variable: String,
    /// Sections and key, joined by dots.
    pub(crate) path: String,
    value: Value,
}

/// The overrides among `variables`; the error names each variable that is wrong.
pub(crate) fn overrides(
    program: Program,
    variables: impl Iterator<Item = (String, String)>,
) -> anyhow::Result<Vec<Override>> {
    let keys = documented_keys::all(program);
    let mut found = Vec::<Override>::new();
    let mut wrong = Vec::new();
    for (variable, text) in
        variables.filter(|(name, _)| name.starts_with(prefix(program).trim_end_matches('_')))
    {
        match read(program, &keys, &variable, &text) {
            Ok(new) if found.iter().any(|other| other.path == new.path) => {
                wrong.push(format!(
                    "{variable}: {} is set by another variable, too; remove one",
                    new.path
                ));
            }
            Ok(new) => found.push(new),
            Err(error) => wrong.push(format!("{variable}: {error:#}")),
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    // A section as a whole comes before its keys, so that it does not wipe them out.
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Puts the overrides over what the file says.
pub(crate) fn apply(overrides: Vec<Override>, file: &mut Table) -> anyhow::Result<()> {
    for Override { variable, path, value } in overrides {
        let mut sections: Vec<&str> = path.split('.').collect();
        let Some(key) = sections.pop() else { continue };
        let mut table = &mut *file;
        for section in sections {
            let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            table = inner
                .as_table_mut()
                .with_context(|| format!("{variable}: {section} is not a section in the file"))?;
        }
        table.insert(key.to_owned(), value);
    }
    Ok(())
}

fn prefix(program: Program) -> &'static str {
    match program {
        Program::Relay => "RESTANTE_RELAY__",
        Program::Node => "RESTANTE_NODE__",
    }
}

fn read(
    program: Program,
    keys: &[DocumentedKey],
    variable: &str,
    text: &str,
) -> anyhow::Result<Override> {
    let prefix = prefix(program);
    let Some(name) = variable.strip_prefix(prefix) else {
        bail!("names of variables begin with {prefix}, with two underscores");
    };
    let path = name.replace("__", ".").to_ascii_lowercase();
    let is_secret =
        |path: &&str| SECRETS.contains(path) && keys.iter().any(|key| key.path == **path);
    if let Some(secret) = path.strip_suffix("_file").filter(is_secret) {
        let content = fs::read_to_string(text).with_context(|| format!("cannot read {text}"))?;
        let value = Value::String(content.trim_end_matches(['\r', '\n']).to_owned());
        return Ok(Override { variable: variable.to_owned(), path: secret.to_owned(), value });
    }
    let Some(key) = keys.iter().find(|key| key.path == path) else {
        let nearest = documented_keys::nearest(&path, keys).replace('.', "__").to_ascii_uppercase();
        bail!("there is no such key; the nearest is {prefix}{nearest}");
    };
    Ok(Override { variable: variable.to_owned(), value: value(text, key.is_text), path })
}

/// A secret or a name may look like a number: for a key that holds text, it is text.
fn value(text: &str, is_text: bool) -> Value {
    let plain = || Value::String(text.to_owned());
    let parsed =
        toml::from_str::<Table>(&format!("value = {text}")).ok().filter(|table| table.len() == 1);
    match parsed.and_then(|mut table| table.remove("value")) {
        Some(value @ (Value::String(_) | Value::Array(_) | Value::Table(_))) => value,
        Some(value) if !is_text => value,
        _ => plain(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(program: Program, variables: &[(&str, &str)]) -> anyhow::Result<Table> {
        let variables =
            variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        let mut table =
            toml::from_str("listen = \"127.0.0.1:1\"\n[limits]\nconnections_max = 7\n")?;
        apply(overrides(program, variables)?, &mut table)?;
        Ok(table)
    }

    #[test]
    fn a_variable_replaces_the_files_value_and_leaves_its_neighbours() {
        let variables = [
            ("RESTANTE_RELAY__LIMITS__BODY_BYTES_MAX", "1024"),
            ("RESTANTE_RELAY__LISTEN", "127.0.0.1:2"),
            ("RESTANTE_NODE__LISTEN", "another program's"),
            ("RESTANTE_TEST_LOG", "nobody's"),
        ];
        let table = read_all(Program::Relay, &variables).unwrap();
        let expected =
            "listen = \"127.0.0.1:2\"\n[limits]\nconnections_max = 7\nbody_bytes_max = 1024\n";
        assert_eq!(table, toml::from_str(expected).unwrap());
    }

    #[test]
    fn every_unknown_variable_is_named_with_the_nearest_key() {
        let variables = [("RESTANTE_RELAY__LISTN", "x"), ("RESTANTE_RELAY_DATA", "x")];
        let error = read_all(Program::Relay, &variables).unwrap_err().to_string();
        assert!(
            error.contains(
                "RESTANTE_RELAY__LISTN: there is no such key; the nearest is RESTANTE_RELAY__LISTEN"
            ),
            "{error}"
        );
        assert!(error.contains("RESTANTE_RELAY_DATA: names of variables begin with"), "{error}");
    }

    #[test]
    fn a_table_is_given_inline_and_a_secret_of_digits_stays_text() {
        let variables = [
            ("RESTANTE_NODE__RELAYS", r#"{ "a.example" = [{ server_name = "r.example" }] }"#),
            ("RESTANTE_NODE__OUTBOUND__SECRET", "12345"),
        ];
        let table = read_all(Program::Node, &variables).unwrap();
        assert_eq!(table["relays"]["a.example"][0]["server_name"].as_str(), Some("r.example"));
        assert_eq!(table["outbound"]["secret"].as_str(), Some("12345"));
    }

    #[test]
    fn a_secret_is_read_from_its_file_without_the_last_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, "in the file\n").unwrap();
        let file = file.to_str().unwrap();
        let from_file = ("RESTANTE_NODE__OUTBOUND__SECRET_FILE", file);
        let table = read_all(Program::Node, &[from_file]).unwrap();
        assert_eq!(table["outbound"]["secret"].as_str(), Some("in the file"));
        let both = [from_file, ("RESTANTE_NODE__OUTBOUND__SECRET", "other")];
        assert!(read_all(Program::Node, &both).unwrap_err().to_string().contains("remove one"));
    }
}
