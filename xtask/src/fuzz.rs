//! `cargo xtask fuzz`: searches for inputs that break what `restante-fuzz-targets` promises.
//!
//! The instrumentation is the compiler's own, so that the toolchain of everything else does. Memory errors are not
//! looked for: the crates under test forbid unsafe code.

mod corpus;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::cargo::{cargo, folders};
use crate::stream::lines_of;

/// What libFuzzer needs to see which code an input reaches, and what it is compared with.
const INSTRUMENTATION: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

/// Bounds of one input: decoders whose work grew faster than their input would need more.
const INPUT_LIMITS: [&str; 3] = ["-max_len=8192", "-timeout=20", "-rss_limit_mb=1024"];

/// What a target may take beyond its time, before it is taken for lost.
const GRACE: Duration = Duration::from_secs(120);

/// How to search.
pub(crate) struct Search<'a> {
    /// For how long each target.
    pub(crate) seconds: u64,
    /// Whether what was found goes into the corpus that the tests replay.
    pub(crate) keep: bool,
    /// Only this target.
    pub(crate) target: Option<&'a str>,
}

/// Where one target reads and writes.
struct Place {
    name: String,
    program: PathBuf,
    dictionary: PathBuf,
    /// `corpus/NAME.jsonl`.
    corpus: PathBuf,
    /// The corpus, a file for each input.
    seeds: PathBuf,
    /// What reached code that no earlier input did; stays for the next run.
    reached: PathBuf,
    /// What broke a promise.
    finds: PathBuf,
}

/// What became of one target.
struct Outcome {
    name: String,
    executions: u64,
    finds: Vec<PathBuf>,
}

/// Searches as told, then says what was found; fails when something was.
pub(crate) fn run(search: &Search<'_>) -> Result<ExitCode> {
    let (workspace, target_folder) = folders()?;
    let folder = target_folder.join("fuzz");
    let names = corpus::targets(&workspace)?;
    let wanted: Vec<_> =
        names.iter().filter(|name| search.target.is_none_or(|target| target == *name)).collect();
    if wanted.is_empty() {
        bail!("there is no such target; there are {}", names.join(", "));
    }
    let program = build(&workspace, &folder)?;
    let mut outcomes = Vec::new();
    for name in wanted {
        let place = Place {
            name: name.clone(),
            program: program.clone(),
            dictionary: workspace.join("fuzz/dictionary.txt"),
            corpus: corpus::file(&workspace, name),
            seeds: folder.join("seeds").join(name),
            reached: folder.join("reached").join(name),
            finds: folder.join("finds").join(name),
        };
        outcomes.push(place.search(search.seconds)?);
        if search.keep {
            place.keep()?;
        }
    }
    Ok(print(&outcomes))
}

fn build(workspace: &Path, folder: &Path) -> Result<PathBuf> {
    let compiler = Command::new("c++").arg("--version").stdout(Stdio::null()).status();
    if !compiler.is_ok_and(|status| status.success()) {
        bail!(
            "libFuzzer needs a C++ compiler named c++; on Debian and Ubuntu: apt-get install g++"
        );
    }
    // With a target named, build scripts stay without instrumentation, for which they have no runtime.
    let host = host()?;
    let status = cargo()
        .args(["build", "--release", "--target", &host, "--manifest-path"])
        .arg(workspace.join("fuzz/Cargo.toml"))
        .arg("--target-dir")
        .arg(folder)
        .env("RUSTFLAGS", INSTRUMENTATION)
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("the fuzzer does not build; the compiler's messages are above");
    }
    Ok(folder.join(host).join("release/restante-fuzz"))
}

fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot start rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}

impl Place {
    fn search(&self, seconds: u64) -> Result<Outcome> {
        corpus::unpack(&self.corpus, &self.seeds)?;
        for folder in [&self.reached, &self.finds] {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let mut command = self.command();
        command.args([&self.reached, &self.seeds]).args(INPUT_LIMITS);
        command.args([
            format!("-max_total_time={seconds}"),
            format!("-dict={}", self.dictionary.display()),
        ]);
        command.arg(format!("-artifact_prefix={}/", self.finds.display()));
        command.args(["-print_final_stats=1", "-print_funcs=0", "-verbosity=0"]);
        let mut executions = 0;
        let deadline = Duration::from_secs(seconds) + GRACE;
        let ended = lines_of(&mut command, deadline, |line| {
            if let Some(number) = line.strip_prefix("stat::number_of_executed_units:") {
                executions = number.trim().parse().unwrap_or(0);
            } else if !is_noise(line) {
                println!("{} | {line}", self.name);
            }
        })?;
        let finds = corpus::files(&self.finds)?;
        let in_order = ended.is_some_and(|status| status.success());
        if !in_order && finds.is_empty() {
            bail!("the search of {} ended without a result; see above", self.name);
        }
        Ok(Outcome { name: self.name.clone(), executions, finds })
    }

    /// Adds to the corpus what broke a promise, and what reaches code that the corpus does not reach.
    fn keep(&self) -> Result<()> {
        let mut command = self.command();
        // How often an input passes a place makes no difference here: one input for each place is enough.
        command.args(["-merge=1", "-use_counters=0", "-verbosity=0", "-max_len=1024"]);
        command.args([&self.seeds, &self.reached]);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !status.context("cannot start the fuzzer")?.success() {
            bail!("the corpus of {} can't be merged: mend what breaks a promise first", self.name);
        }
        let added = corpus::add(&self.corpus, &[&self.finds, &self.seeds])?;
        println!("{} | {added} inputs added to {}", self.name, self.corpus.display());
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("RESTANTE_FUZZ_TARGET", &self.name);
        command
    }
}

/// What the fuzzer says of itself, and not of an input.
fn is_noise(line: &str) -> bool {
    let starts = ["stat::", "INFO: ", "######", "WARNING: Failed to find function"];
    starts.iter().any(|start| line.starts_with(start)) || line.contains("# Uses:")
}

fn print(outcomes: &[Outcome]) -> ExitCode {
    let width = outcomes.iter().map(|outcome| outcome.name.len()).max().unwrap_or(0);
    println!("\n{:width$}  executions  finds", "target");
    for Outcome { name, executions, finds } in outcomes {
        println!("{name:width$}  {executions:10}  {:5}", finds.len());
    }
    let finds: Vec<_> = outcomes.iter().flat_map(|outcome| &outcome.finds).collect();
    if finds.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!(
        "\nThese break a promise; mend it, then add them to the corpus with --keep and delete them:"
    );
    finds.iter().for_each(|find| println!("  {}", find.display()));
    ExitCode::FAILURE
}
