//! Kills a process group when the test process dies without a word.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

/// A shell that waits for its input to close, which the death of this process does as well, and then
/// kills the group. Ctrl-C and SIGKILL end tests without running any destructor.
#[derive(Debug)]
pub(super) struct Guard(Child);

impl Guard {
    /// Watches over the process group `group` until it is dropped.
    pub(super) fn over(group: u32) -> Self {
        let script = "read -r _; kill -s KILL -- \"-$0\"";
        let shell = Command::new("/bin/sh")
            .args(["-c", script, &group.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Out of reach of the terminal's Ctrl-C.
            .process_group(0)
            .spawn();
        Self(shell.expect("/bin/sh starts"))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Killed before its input closes: the group may be gone, and its number another's.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks the process `pid`, which was not waited for yet, to end.
pub(super) fn ask_to_end(pid: u32) {
    signal("TERM", &pid.to_string());
}

/// Kills the process group `group`, whose leader was not waited for yet.
pub(super) fn kill_group(group: u32) {
    signal("KILL", &format!("-{group}"));
}

fn signal(signal: &str, target: &str) {
    // The shell's own `kill`: the standard library knows SIGKILL alone, and no groups.
    let script = "kill -s \"$0\" -- \"$1\"";
    let status =
        Command::new("/bin/sh").args(["-c", script, signal, target]).stderr(Stdio::null()).status();
    status.expect("/bin/sh starts");
}
