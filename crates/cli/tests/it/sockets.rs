//! Socket activation: the service manager holds the listening sockets while a relay is restarted.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Longer than a start takes on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Puts its standard input and output in the places where sockets are passed, says so, and becomes the program.
const PASS_SOCKETS: &str = "exec 3<&0 4<&1 0</dev/null 1>/dev/null; \
    export LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=public:operators; exec \"$0\" \"$@\"";

/// What a service manager holds.
struct Manager {
    public: TcpListener,
    operators: TcpListener,
}

/// A relay that is ended with the test.
struct Relay(Child);

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Manager {
    fn new() -> Self {
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        Self { public: bind(), operators: bind() }
    }

    fn start_relay(&self, folder: &Path) -> Relay {
        let passed = |socket: &TcpListener| Stdio::from(OwnedFd::from(socket.try_clone().unwrap()));
        let mut command = Command::new("sh");
        command.args(["-c", PASS_SOCKETS, env!("CARGO_BIN_EXE_restante"), "relay", "--data"]);
        // Addresses that can't be bound: only what is inherited can serve.
        command.arg(folder).args(["--listen", "192.0.2.1:1"]);
        command.env("RESTANTE_RELAY__OPERATORS__LISTEN", "127.0.0.1:1");
        command.stdin(passed(&self.public)).stdout(passed(&self.operators)).stderr(Stdio::null());
        Relay(command.spawn().unwrap())
    }
}

impl Relay {
    fn stop(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

/// Connects and asks; nobody may be there to answer yet.
fn ask(socket: &TcpListener, target: &str) -> TcpStream {
    let mut stream = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn is_answered(mut stream: TcpStream) {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn connections_made_while_no_relay_runs_are_answered_after_its_start() {
    let folder = tempfile::tempdir().unwrap();
    let (data, manager) = (folder.path().join("data"), Manager::new());
    let version = "/_matrix/federation/v1/version";
    let early = (ask(&manager.public, version), ask(&manager.operators, "/health"));
    let relay = manager.start_relay(&data);
    is_answered(early.0);
    is_answered(early.1);

    relay.stop();
    let between = ask(&manager.public, version);
    let relay = manager.start_relay(&data);
    is_answered(between);
    relay.stop();
}
