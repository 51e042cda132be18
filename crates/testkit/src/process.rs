//! A process under test: started into its own process group, logged to a file, gone with its owner.

mod guard;
mod restante;

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::eventually;
use guard::{Guard, ask_to_end, kill_group};
pub(crate) use restante::restante;

/// How long a process may take to end by itself after SIGTERM.
const TERMINATE_DEADLINE: Duration = Duration::from_secs(30);

/// Lines of a log that a failed test shows.
const LOG_TAIL_LINES: usize = 60;

/// What to start.
#[derive(Debug, Clone)]
pub struct Program {
    /// What messages call it.
    pub name: String,
    /// Executable.
    pub executable: PathBuf,
    /// Arguments.
    pub arguments: Vec<OsString>,
    /// Working directory.
    pub directory: PathBuf,
    /// Where its output goes, appended over restarts.
    pub log: PathBuf,
}

/// A [`Program`] that runs, or has stopped and can be started again.
///
/// Killed when dropped. A test that panics shows the tail of the log.
#[derive(Debug)]
pub struct Process {
    program: Program,
    environment: Vec<(OsString, OsString)>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    group: u32,
    _guard: Guard,
}

impl Process {
    /// Starts `program` with both outputs in its log.
    pub fn start(program: Program) -> Self {
        let mut process = Self { program, environment: Vec::new(), running: None };
        process.start_again();
        process
    }

    /// Starts `program` with pipes for its input and output; only errors are logged.
    pub fn start_piped(program: Program) -> (Self, ChildStdin, ChildStdout) {
        let mut running = Running::start(&program, |command| {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        });
        let stdin = running.child.stdin.take().expect("stdin was piped");
        let stdout = running.child.stdout.take().expect("stdout was piped");
        (Self { program, environment: Vec::new(), running: Some(running) }, stdin, stdout)
    }

    /// Starts the stopped program again.
    ///
    /// # Panics
    ///
    /// When it runs already.
    pub fn start_again(&mut self) {
        assert!(self.running.is_none(), "{} runs already", self.program.name);
        let log = open_log(&self.program.log);
        self.running = Some(Running::start(&self.program, |command| {
            command.stdin(Stdio::null()).stdout(log);
            command.envs(self.environment.iter().cloned());
        }));
    }

    /// Adds to the environment of the starts that follow.
    pub(crate) fn set_environment(&mut self, environment: Vec<(OsString, OsString)>) {
        self.environment = environment;
    }

    /// The most memory that the running process has held at once, MiB, where the system tells.
    pub fn peak_memory_mib(&self) -> Option<u64> {
        let pid = self.running.as_ref()?.group;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: u64 = peak.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib / 1024)
    }

    /// Waits until `look` finds the process ready.
    ///
    /// # Panics
    ///
    /// When the process ends instead, or is not ready before the deadline.
    pub async fn until_ready<T>(
        &mut self,
        deadline: Duration,
        mut look: impl AsyncFnMut() -> Option<T>,
    ) -> T {
        let what = format!("{} gets ready", self.program.name);
        eventually(&what, deadline, async || {
            if let Some(status) = self.exit_status() {
                panic!("{} ended with {status} instead of getting ready", self.program.name);
            }
            look().await
        })
        .await
    }

    /// How it ended, if it was started and has ended by itself.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.running.as_mut()?.child.try_wait().expect("the process is our child")
    }

    /// Whether it was started and not stopped.
    pub fn is_started(&self) -> bool {
        self.running.is_some()
    }

    /// Asks it to end (SIGTERM) and waits until it has. Does nothing when it is stopped.
    ///
    /// # Panics
    ///
    /// When it does not end before the deadline.
    pub async fn terminate(&mut self) {
        let Some(running) = &mut self.running else { return };
        ask_to_end(running.group);
        if tokio::time::timeout(TERMINATE_DEADLINE, running.child.wait()).await.is_err() {
            panic!("{} does not end after SIGTERM", self.program.name);
        }
        self.running = None;
    }

    /// Kills it (SIGKILL), as a power cut would. Does nothing when it is stopped.
    pub async fn kill(&mut self) {
        let Some(running) = &mut self.running else { return };
        kill_group(running.group);
        running.child.wait().await.expect("the process is our child");
        self.running = None;
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.program.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(running) = &mut self.running
            && let Ok(None) = running.child.try_wait()
        {
            kill_group(running.group);
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n");
            eprintln!("---- the end of the log of {}:\n{tail}", self.program.name);
        }
    }
}

impl Running {
    fn start(program: &Program, connect: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(&program.executable);
        command.args(&program.arguments).current_dir(&program.directory);
        command.stderr(open_log(&program.log)).process_group(0);
        connect(&mut command);
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("cannot start {} ({}): {error}", program.name, program.executable.display())
        });
        let group = child.id().expect("a child that was not waited for has an id");
        Self { child, group, _guard: Guard::over(group) }
    }
}

fn open_log(path: &Path) -> File {
    let log = File::options().create(true).append(true).open(path);
    log.unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    fn shell(directory: &Path, script: &str) -> Program {
        Program {
            name: "a shell".to_owned(),
            executable: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            directory: directory.to_owned(),
            log: directory.join("shell.log"),
        }
    }

    fn is_alive(pid: u32) -> bool {
        // A killed process stays in the table as a zombie until its parent has waited for it.
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("State:") && !line.contains("zombie"))
    }

    #[tokio::test]
    async fn a_process_and_its_children_are_gone_with_their_owner() {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let mut process = Process::start(shell(folder.path(), "sleep 1000 & echo $!; wait"));
        let log = folder.path().join("shell.log");
        let grandchild: u32 = process
            .until_ready(DEADLINE, async || std::fs::read_to_string(&log).ok()?.trim().parse().ok())
            .await;
        assert!(is_alive(grandchild));
        drop(process);
        eventually("the grandchild is gone", DEADLINE, async || {
            (!is_alive(grandchild)).then_some(())
        })
        .await;
    }

    #[tokio::test]
    async fn a_process_that_is_asked_to_end_can_finish_and_start_again() {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let script = "trap 'echo bye; exit' TERM; echo hello; while :; do sleep 0.01; done";
        let mut process = Process::start(shell(folder.path(), script));
        let says_hello = |times: usize, process: &Process| {
            (process.log().matches("hello").count() == times).then_some(())
        };
        eventually("the first hello", DEADLINE, async || says_hello(1, &process)).await;
        process.terminate().await;
        assert_eq!(process.log(), "hello\nbye\n");
        process.start_again();
        eventually("the second hello", DEADLINE, async || says_hello(2, &process)).await;
    }

    #[tokio::test]
    #[should_panic(expected = "a shell ended with exit status: 3 instead of getting ready")]
    async fn a_process_that_ends_does_not_get_ready() {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let mut process = Process::start(shell(folder.path(), "exit 3"));
        process.until_ready(DEADLINE, async || None::<()>).await;
    }
}
