//! Calls cargo: where it builds, what it built, what its tests say.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::tally::Tally;

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

/// Runs `cargo test` with `arguments`, all output live; fails when there was nothing to run, for
/// example because the build failed.
pub(crate) fn test(arguments: &[&str]) -> Result<Tally> {
    let mut command = cargo();
    command.arg("test").args(arguments).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start cargo")?;
    let stdout = child.stdout.take().context("stdout was piped")?;
    let mut tally = Tally::default();
    for line in std::io::BufRead::lines(std::io::BufReader::new(stdout)) {
        let line = line.context("cannot read cargo's output")?;
        println!("{line}");
        tally.read(&line);
    }
    let status = child.wait().context("cargo was lost")?;
    if !status.success() && tally.failed == 0 {
        bail!(
            "`cargo test` ended with {status} without a failed test: the build failed, or a test program crashed; see above"
        );
    }
    Ok(tally)
}

#[derive(Deserialize)]
struct Artifact {
    target: Target,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// Builds with `arguments` and returns the executable of the target `name`.
pub(crate) fn build(arguments: &[&str], name: &str) -> Result<PathBuf> {
    let output = cargo()
        .args(arguments)
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("{name} does not build; the compiler's messages are above");
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<Artifact>(line).ok());
    let executable =
        artifacts.filter(|artifact| artifact.target.name == name).find_map(|a| a.executable);
    executable.with_context(|| format!("cargo built no executable {name}"))
}
