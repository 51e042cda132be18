//! Runs a command, showing its output line by line as it comes.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Lines that a program may be ahead of what is shown; then it waits.
const LINES_AHEAD: usize = 1000;

/// Runs `command` and gives `see` each line of both outputs; `None` when it was killed at the deadline.
pub(crate) fn lines_of(
    command: &mut Command,
    deadline: Duration,
    mut see: impl FnMut(&str),
) -> Result<Option<ExitStatus>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("cannot start {program}"))?;
    let (sender, lines) = sync_channel(LINES_AHEAD);
    let stdout = child.stdout.take().context("stdout was piped")?;
    let stderr = child.stderr.take().context("stderr was piped")?;
    std::thread::scope(|threads| {
        let other = sender.clone();
        threads.spawn(move || forward(stdout, &sender));
        threads.spawn(move || forward(stderr, &other));
        let end = Instant::now() + deadline;
        let mut in_time = true;
        loop {
            match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => see(&line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    in_time = false;
                    child.kill().with_context(|| format!("cannot kill {program}"))?;
                    break;
                }
            }
        }
        // Whoever still sends must not wait for a reader that has gone.
        drop(lines);
        let status = child.wait().with_context(|| format!("{program} was lost"))?;
        Ok(in_time.then_some(status))
    })
}

fn forward(output: impl Read, lines: &SyncSender<String>) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    // Not `lines()`: what a test prints need not be UTF-8.
    while let Ok(1..) = output.read_until(b'\n', &mut line) {
        let text = String::from_utf8_lossy(&line);
        if lines.send(text.trim_end().to_owned()).is_err() {
            return;
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn the_lines_of_both_outputs_are_seen() {
        let mut seen = Vec::new();
        let mut command = shell("echo out; echo err >&2; printf '\\377end'");
        let deadline = Duration::from_secs(60);
        let status = lines_of(&mut command, deadline, |line| seen.push(line.to_owned()));
        assert!(status.unwrap().unwrap().success());
        seen.sort();
        assert_eq!(seen, ["err", "out", "\u{fffd}end"]);
    }

    #[test]
    fn a_program_that_takes_too_long_is_killed() {
        let ended = lines_of(&mut shell("exec sleep 1000"), Duration::from_millis(50), |_| {});
        assert!(ended.unwrap().is_none());
    }
}
