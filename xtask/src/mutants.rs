//! `cargo xtask mutants`: changes the rules on purpose, one change at a time, and sees whether a test notices.
//!
//! `.cargo/mutants.toml` says which files, and which changes no test can notice and why.

use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::cargo::{cargo, folders};

/// Tries every change in `package`, or in all that the configuration lists; fails when one went unnoticed.
pub(crate) fn run(package: Option<&str>) -> Result<ExitCode> {
    let mut version = cargo();
    version.args(["mutants", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    if !version.status().is_ok_and(|status| status.success()) {
        bail!("cargo-mutants is missing; install it with: cargo install --locked cargo-mutants");
    }
    let (_, target) = folders()?;
    let output = target.join("mutants");
    std::fs::create_dir_all(&output)
        .with_context(|| format!("cannot make {}", output.display()))?;
    let mut command = cargo();
    command.arg("mutants").arg("--output").arg(&output);
    // It works in a copy of the tree, whose dependencies are built once and stay.
    command.env("CARGO_TARGET_DIR", output.join("build"));
    command.args(package.into_iter().flat_map(|package| ["--package", package]));
    let status = command.status().context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
