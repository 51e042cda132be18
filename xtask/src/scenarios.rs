//! The tests that run the built program as processes, each a job of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::cargo::TestProgram;
use crate::jobs::Job;

/// A scenario takes up to two minutes on an idle machine.
const DEADLINE: Duration = Duration::from_secs(420);

/// Those that take more than a minute begin first, so that none of them is left alone at the end.
const SLOW: [&str; 6] = ["h_", "s_", "q_", "m_", "o_", "ai_"];

/// What the tests of whole systems run.
pub(crate) struct Programs {
    /// The program under test.
    pub(crate) restante: PathBuf,
    /// The Python with a homeserver and a client.
    pub(crate) python: PathBuf,
}

/// A job for each test of `program` whose name contains `filter`.
pub(crate) fn jobs(
    program: &TestProgram,
    programs: &Programs,
    filter: Option<&str>,
) -> Result<Vec<Job>> {
    let mut names = list(&program.executable, filter)?;
    names.sort_by_key(|name| !SLOW.iter().any(|slow| name.starts_with(slow)));
    let job = |name: String| {
        let mut command = program.command();
        command.args([&name, "--exact", "--nocapture"]);
        command.env("RESTANTE_BIN", &programs.restante).env("RESTANTE_PYTHON", &programs.python);
        Job { name, command, deadline: DEADLINE }
    };
    Ok(names.into_iter().map(job).collect())
}

/// What is only run when asked for by name: measurements.
fn ignored(program: &Path) -> Result<Vec<String>> {
    listed(program, &["--ignored"])
}

/// The measurement of `program` whose name ends in `name`, with what it prints.
pub(crate) fn measurement(
    program: &TestProgram,
    programs: &Programs,
    name: &str,
) -> Result<Command> {
    let all = ignored(&program.executable)?;
    let Some(name) = all.into_iter().find(|known| known.ends_with(name)) else {
        bail!("there is no measurement {name}")
    };
    let mut command = program.command();
    command.args([&name, "--exact", "--ignored", "--nocapture"]);
    command.env("RESTANTE_BIN", &programs.restante).env("RESTANTE_PYTHON", &programs.python);
    Ok(command)
}

fn list(program: &Path, filter: Option<&str>) -> Result<Vec<String>> {
    let (all, ignored) = (listed(program, &[])?, ignored(program)?);
    let wanted = all.into_iter().filter(|name| !ignored.contains(name));
    Ok(wanted.filter(|name| filter.is_none_or(|filter| name.contains(filter))).collect())
}

fn listed(program: &Path, which: &[&str]) -> Result<Vec<String>> {
    let output = Command::new(program).args(["--list", "--format", "terse"]).args(which).output();
    let output = output.with_context(|| format!("cannot start {}", program.display()))?;
    if !output.status.success() {
        bail!("{} does not list its tests", program.display());
    }
    let listed = String::from_utf8_lossy(&output.stdout);
    let names = listed.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(names.map(str::to_owned).collect())
}
