//! SIGHUP and the operators' command: a running relay goes by a changed file.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use restante_testkit::Port;
use rustix::process::{Pid, Signal, kill_process};

/// Longer than a start takes on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// A relay that is ended with the test.
struct Relay {
    process: Child,
    operators: SocketAddr,
    token: std::path::PathBuf,
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn configure(folder: &Path, operators: SocketAddr, serve: &str) {
    let text = format!("serve = \"{serve}\"\n[operators]\nlisten = \"{operators}\"\n");
    fs::write(folder.join("relay.toml"), text).unwrap();
}

impl Relay {
    fn start(folder: &Path, operators: SocketAddr) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_restante"));
        command
            .args(["relay", "--listen", "127.0.0.1:0", "--config"])
            .arg(folder.join("relay.toml"));
        command.arg("--data").arg(folder.join("data"));
        let log = fs::File::create(folder.join("log")).unwrap();
        let process = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self { process, operators, token: folder.join("data/admin-token") }
    }

    /// The answer to a command, if it is there to give one.
    fn ask(&self, method: &str, target: &str) -> Option<String> {
        let token = fs::read_to_string(&self.token).ok()?;
        let mut stream = TcpStream::connect(self.operators).ok()?;
        let request = format!(
            "{method} /_restante/admin/v1{target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-length: 0\r\nauthorization: Bearer {}\r\n\r\n",
            token.trim()
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn until_it_serves(&self, serve: &str) {
        let wanted = format!("\"serve\":\"{serve}\"");
        let until = Instant::now() + PATIENCE;
        while !self.ask("GET", "/status").is_some_and(|status| status.contains(&wanted)) {
            assert!(Instant::now() < until, "the relay never served {serve}");
            std::thread::park_timeout(PAUSE);
        }
    }
}

#[test]
fn a_relay_goes_by_a_changed_file_after_a_hangup_and_names_what_it_can_not_change() {
    let folder = tempfile::tempdir().unwrap();
    let port = Port::reserve();
    let operators = port.address().parse().unwrap();
    configure(folder.path(), operators, "open");
    let relay = Relay::start(folder.path(), operators);
    relay.until_it_serves("open");
    configure(folder.path(), operators, "invited");
    kill_process(Pid::from_child(&relay.process), Signal::HUP).unwrap();
    relay.until_it_serves("invited");

    let other = Port::reserve();
    configure(folder.path(), other.address().parse().unwrap(), "listed");
    let report = relay.ask("POST", "/reload").unwrap();
    let expected = r#"{"applied":["serve"],"needs_restart":["operators.listen"],"error":null}"#;
    assert!(report.ends_with(expected), "{report}");
    fs::write(folder.path().join("relay.toml"), "serve = \"everybody\"\n").unwrap();
    let refused = relay.ask("POST", "/reload").unwrap();
    assert!(refused.contains("Nothing was changed") && refused.contains("everybody"), "{refused}");
    relay.until_it_serves("listed");
}

#[test]
fn what_a_relay_logs_changes_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let port = Port::reserve();
    let operators = port.address().parse().unwrap();
    let log = |filter: &str| {
        let text = format!("[operators]\nlisten = \"{operators}\"\n[log]\nfilter = \"{filter}\"\n");
        fs::write(folder.path().join("relay.toml"), text).unwrap();
    };
    let logged = || fs::read_to_string(folder.path().join("log")).unwrap();
    log("error");
    let relay = Relay::start(folder.path(), operators);
    relay.until_it_serves("open");
    assert!(!logged().contains("INFO"), "{}", logged());
    log("info");
    let report = relay.ask("POST", "/reload").unwrap();
    let expected = r#"{"applied":["log.filter"],"needs_restart":[],"error":null}"#;
    assert!(report.ends_with(expected), "{report}");
    assert!(logged().contains("configuration reloaded"), "{}", logged());

    log("restante=loud");
    let refused = relay.ask("POST", "/reload").unwrap();
    assert!(refused.contains("Nothing was changed") && refused.contains("log.filter"), "{refused}");
    log("error");
    kill_process(Pid::from_child(&relay.process), Signal::HUP).unwrap();
    let until = Instant::now() + PATIENCE;
    loop {
        let before = logged().len();
        relay.ask("POST", "/reload").unwrap();
        if logged().len() == before {
            break;
        }
        assert!(Instant::now() < until, "it goes on logging");
    }
}
