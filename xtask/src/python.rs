//! The Python environment that the scenarios use: a Synapse and a client, pinned.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// What is to be installed, below the workspace.
const REQUIREMENTS: &str = "crates/testkit/python/requirements.txt";

/// Proof, inside the environment, of what was installed with which Python.
const STAMP: &str = "installed-requirements.txt";

/// Tried in this order.
const CANDIDATES: [&str; 5] = ["python3", "python3.14", "python3.13", "python3.12", "python3.11"];

/// Prints its version if it can make environments. The pinned packages ask for 3.11.
const PROBE: &str =
    "import ensurepip, sys, venv; assert sys.version_info >= (3, 11); print(sys.version)";

/// Makes the environment if it is missing or does not match, and returns its Python.
pub(crate) fn environment(workspace: &Path, target: &Path) -> Result<PathBuf> {
    let Some((python, version)) = CANDIDATES.iter().find_map(|name| Some((*name, probe(name)?)))
    else {
        bail!(
            "the scenarios need Python 3.11 or newer with its modules venv and ensurepip; on Debian and \
             Ubuntu: apt-get install python3 python3-venv"
        );
    };
    let requirements = workspace.join(REQUIREMENTS);
    let wanted = std::fs::read_to_string(&requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    let stamp_text = format!("# {version}\n{wanted}");
    let folder = target.join("venv");
    let (stamp, installed) = (folder.join(STAMP), folder.join("bin/python"));
    if installed.exists() && std::fs::read_to_string(&stamp).is_ok_and(|text| text == stamp_text) {
        return Ok(installed);
    }
    println!("making a Python environment in {}", folder.display());
    run(Command::new(python).args(["-m", "venv", "--clear"]).arg(&folder), "cannot make it")?;
    let mut pip = Command::new(&installed);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--prefer-binary"]);
    pip.arg("--requirement").arg(&requirements);
    run(&mut pip, "cannot install the homeserver and the client for the scenarios")?;
    std::fs::write(&stamp, stamp_text)
        .with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(installed)
}

fn probe(name: &str) -> Option<String> {
    let output = Command::new(name).args(["-c", PROBE]).stderr(Stdio::null()).output().ok()?;
    let version = String::from_utf8_lossy(&output.stdout).replace(['\r', '\n'], " ");
    output.status.success().then_some(version)
}

fn run(command: &mut Command, failed: &str) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| failed.to_owned())?;
    if !status.success() {
        bail!("{failed}: {status}; the reason is above");
    }
    Ok(())
}
