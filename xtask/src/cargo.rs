//! Calls cargo: where it builds, and what it built.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// A `cargo` command; its messages go straight to the terminal.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

#[derive(Deserialize)]
struct Metadata {
    target_directory: PathBuf,
    workspace_root: PathBuf,
}

/// Where the workspace lies, and where it builds.
pub(crate) fn folders() -> Result<(PathBuf, PathBuf)> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo metadata failed; its message is above");
    }
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).context("cargo metadata gave something odd")?;
    Ok((metadata.workspace_root, metadata.target_directory))
}

#[derive(Deserialize)]
struct Artifact {
    target: Target,
    profile: Profile,
    manifest_path: PathBuf,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// A built test program.
pub(crate) struct TestProgram {
    /// Its target: a library, a program, or a file in `tests`.
    pub(crate) target: String,
    pub(crate) executable: PathBuf,
    package: PathBuf,
    is_integration: bool,
}

impl TestProgram {
    /// Its package's folder and its target.
    pub(crate) fn name(&self) -> String {
        let package = self.package.file_name().map(|name| name.to_string_lossy().into_owned());
        let package = package.unwrap_or_default();
        if self.is_integration { format!("{package}/{}", self.target) } else { package }
    }

    /// Runs it as cargo would: in its package's folder.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        command.current_dir(&self.package).env("CARGO_MANIFEST_DIR", &self.package);
        command
    }
}

/// Builds with `arguments` and returns the executable of the target `name`.
pub(crate) fn build(arguments: &[&str], name: &str) -> Result<PathBuf> {
    let artifacts = artifacts(arguments, name)?;
    let executable = artifacts.into_iter().filter(|artifact| artifact.target.name == name);
    executable
        .filter_map(|artifact| artifact.executable)
        .next()
        .with_context(|| format!("cargo built no executable {name}"))
}

/// Builds all test programs that `selection` names.
pub(crate) fn build_tests(selection: &[&str]) -> Result<Vec<TestProgram>> {
    let artifacts = artifacts(&[&["test", "--no-run"], selection].concat(), "a test program")?;
    let tests = artifacts.into_iter().filter(|artifact| artifact.profile.test);
    let tests = tests.filter_map(|artifact| {
        Some(TestProgram {
            executable: artifact.executable?,
            is_integration: artifact.target.kind.iter().any(|kind| kind == "test"),
            target: artifact.target.name,
            package: artifact.manifest_path.parent()?.to_owned(),
        })
    });
    let tests: Vec<_> = tests.collect();
    if tests.is_empty() {
        bail!("cargo built no test program");
    }
    Ok(tests)
}

fn artifacts(arguments: &[&str], what: &str) -> Result<Vec<Artifact>> {
    let output = cargo()
        .args(arguments)
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("{what} does not build; the compiler's messages are above");
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    Ok(messages.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}
