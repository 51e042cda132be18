//! `restante doctor node` on a node that runs beside a homeserver of the test's, with a relay.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use restante_federation_proto::{Clock as _, SigningKey, SystemClock, mint};
use restante_testkit::Port;
use serde_json::Value;
use tempfile::TempDir;

use crate::ready::Notified;

/// How long the homeserver's keys are valid.
const VALIDITY: Duration = Duration::from_secs(24 * 3600);

/// A program that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A homeserver with nothing but a version and keys; it ends with the test's process.
struct Homeserver {
    port: u16,
}

impl Homeserver {
    fn start(key: &SigningKey) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let document =
            mint(&"a.test".parse().unwrap(), key, None, SystemClock.now().after(VALIDITY));
        let keys = String::from_utf8(document.raw().to_vec()).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &keys);
            }
        });
        Self { port }
    }
}

fn answer(mut stream: TcpStream, keys: &str) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read > 0) {
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head);
    let (status, body) = match head.split(' ').nth(1) {
        Some("/_matrix/federation/v1/version") => {
            ("200 OK", r#"{"server":{"name":"Scripted","version":"1"}}"#)
        }
        Some("/_matrix/key/v2/server") => ("200 OK", keys),
        _ => ("404 Not Found", r#"{"errcode":"M_UNRECOGNIZED","error":"no such endpoint"}"#),
    };
    let length = body.len();
    // A caller that hangs up is no concern of this server's.
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
}

/// A relay and a node that know each other, in one folder.
struct Site {
    folder: TempDir,
    relay: Running,
    _node: Running,
    /// Nobody else takes them before the programs have them.
    _ports: [Port; 5],
}

impl Site {
    fn start(homeservers_key: &SigningKey, nodes_key: &SigningKey) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let homeserver = Homeserver::start(homeservers_key).port;
        let ports = [(); 5].map(|()| Port::reserve());
        let [public, operators, outbound, inbound, admin] = ports.each_ref().map(Port::address);
        let write = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
        write("signing.key", nodes_key.to_file_text());
        let routes = format!(
            "[federation]\ndns = \"off\"\nroutes = {{ \"a.test\" = \"http://{inbound}\", \"relay.test\" = \"http://{public}\" }}\n"
        );
        write(
            "relay.toml",
            format!(
                "listen = \"{public}\"\ndata = \"relay\"\nserver_name = \"relay.test\"\nserve = \"open\"\n\
                 [operators]\nlisten = \"{operators}\"\n{routes}"
            ),
        );
        write(
            "node.toml",
            format!(
                "server_name = \"a.test\"\nsigning_key = \"signing.key\"\ndata = \"node\"\n\
                 homeserver = \"http://127.0.0.1:{homeserver}\"\n\
                 [outbound]\nlisten = \"{outbound}\"\nsecret = \"s3cret\"\n\
                 [inbound]\nlisten = \"{inbound}\"\n[admin]\nlisten = \"{admin}\"\n\
                 [relays]\n\"a.test\" = [{{ server_name = \"relay.test\" }}]\n\
                 [records.web_sites]\n\"a.test\" = \"http://{inbound}\"\n{routes}"
            ),
        );
        let relay = start(folder.path(), "relay");
        let node = start(folder.path(), "node");
        Self { folder, relay, _node: node, _ports: ports }
    }

    fn examine(&self) -> Value {
        let output = restante(self.folder.path())
            .args(["doctor", "node", "--config", "node.toml", "--json"])
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn restante(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_restante"));
    command.current_dir(folder).stdin(Stdio::null());
    command
}

fn start(folder: &Path, program: &str) -> Running {
    let notified = Notified::bind(folder);
    let mut command = restante(folder);
    command.args([program, "--config", &format!("{program}.toml")]);
    command.env("NOTIFY_SOCKET", notified.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running(command.spawn().unwrap());
    assert_eq!(notified.next_state(), "READY=1");
    running
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed("ed25519:1".parse().unwrap(), &[seed; 32])
}

fn step<'a>(report: &'a Value, name: &str) -> &'a Value {
    let mut steps = report["steps"].as_array().unwrap().iter();
    steps.find(|step| step["name"] == name).unwrap_or(&Value::Null)
}

#[test]
fn a_node_that_is_well_is_found_so_by_every_step() {
    let site = Site::start(&key(1), &key(1));
    let report = site.examine();
    for name in [
        "operators' door",
        "homeserver",
        "homeserver's key",
        "worker hook",
        "inbound door",
        "own name",
        "relay relay.test",
        "reached by relay.test",
        "relay record",
    ] {
        assert_eq!(step(&report, name)["verdict"], "ok", "{name}: {report:#}");
    }
}

#[test]
fn a_key_that_the_homeserver_has_not_and_a_relay_that_is_down_are_failures() {
    let mut site = Site::start(&key(1), &key(2));
    site.relay.0.kill().unwrap();
    site.relay.0.wait().unwrap();
    let report = site.examine();
    assert_eq!(report["healthy"], false);
    let homeservers = step(&report, "homeserver's key");
    assert_eq!(homeservers["verdict"], "failed", "{report:#}");
    assert!(homeservers["what_to_do"].as_str().unwrap().contains("signing_key"), "{report:#}");
    assert_eq!(step(&report, "relay relay.test")["verdict"], "failed", "{report:#}");
}
