//! What systemd learns of a relay, and what it can ask of it by signals.

use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::ready::Notified;

/// A relay that is ended with the test.
struct Relay(Child);

impl Relay {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_relay_says_when_it_is_ready_and_stopping_and_outlives_a_reload() {
    let folder = tempfile::tempdir().unwrap();
    let systemd = Notified::bind(folder.path());
    let mut command = Command::new(env!("CARGO_BIN_EXE_restante"));
    command.args(["relay", "--listen", "127.0.0.1:0", "--data"]).arg(folder.path().join("data"));
    command.env("RESTANTE_RELAY__OPERATORS__LISTEN", "127.0.0.1:0");
    command.env("NOTIFY_SOCKET", systemd.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut relay = Relay(command.spawn().unwrap());
    assert_eq!(systemd.next_state(), "READY=1");
    relay.signal(Signal::HUP);
    relay.signal(Signal::TERM);
    assert_eq!(systemd.next_state(), "STOPPING=1");
    assert!(relay.0.wait().unwrap().success());
}
