//! An operator's commands on a relay that runs: invites, mailboxes, backup and restore, configuration, doctor.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use restante_federation_proto::{Clock as _, SystemClock};
use restante_relay_api::{Content, hex};
use restante_testkit::Port;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ready::Notified;

/// A relay for invited servers in a folder of its own, ended with the test.
struct Relay {
    folder: TempDir,
    process: Option<Child>,
    /// Nobody else takes them while it is stopped, or before it has them.
    _ports: [Port; 2],
}

impl Relay {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports = [Port::reserve(), Port::reserve()];
        let [public, operators] = ports.each_ref().map(Port::address);
        let mut relay = Self { folder, process: None, _ports: ports };
        relay.write(&format!(
            "listen = \"{public}\"\ndata = \"data\"\nserve = \"invited\"\n\
             [operators]\nlisten = \"{operators}\"\n[federation]\ndns = \"off\"\n"
        ));
        relay.start_again();
        relay
    }

    fn start_again(&mut self) {
        let notified = Notified::bind(self.folder.path());
        let mut command = self.command(&["relay", "--config", "relay.toml"]);
        command.env("NOTIFY_SOCKET", notified.path());
        self.process = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        assert_eq!(notified.next_state(), "READY=1");
    }

    fn stop(&mut self) {
        let mut process = self.process.take().unwrap();
        kill_process(Pid::from_child(&process), Signal::TERM).unwrap();
        assert!(process.wait().unwrap().success());
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_restante"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// A command with this relay's configuration.
    fn run(&self, arguments: &[&str]) -> Output {
        self.command(&[arguments, &["--config", "relay.toml"]].concat()).output().unwrap()
    }

    /// What a command that succeeds prints.
    fn told(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command that fails prints: one sentence.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.told(&[arguments, &["--json"]].concat())).unwrap()
    }

    fn write(&self, config: &str) {
        fs::write(self.path("relay.toml"), config).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Lines as an export has them: `count` envelopes for `b.example`.
fn exported(count: u64) -> String {
    let now = SystemClock.now().as_millis();
    let line = |number: u64| {
        let content = json!({
            "origin": "a.example", "origin_server_ts": now, "pdus": [], "edus": [{ "edu_type": "n", "content": { "n": number } }],
        });
        let content = Content::parse(content.to_string().into()).unwrap();
        let line = json!({
            "id": number, "recipient": "b.example", "origin": "a.example", "txn_id": format!("t{number}"),
            "sha256": hex(content.sha256()), "deposited_at": now, "expires_at": now + 86_400_000,
            "content": STANDARD.encode(content.raw()), "members": "",
        });
        format!("{line}\n")
    };
    (1..=count).map(line).collect()
}

fn mailbox_with(relay: &Relay, count: u64) {
    fs::write(relay.path("mail"), exported(count)).unwrap();
    let text = relay.told(&["mailbox", "import", "b.example", "mail"]);
    assert!(text.ends_with("put into the mailbox of b.example\n"), "{text}");
    assert_eq!(waiting(relay), count);
}

fn waiting(relay: &Relay) -> u64 {
    relay.json(&["mailbox", "show", "b.example"])["envelopes"].as_u64().unwrap()
}

#[test]
fn a_doctor_finds_a_relay_for_invited_servers_well_and_leaves_no_mail_behind() {
    let relay = Relay::start();
    let report = relay.json(&["doctor", "relay"]);
    assert_eq!(report["healthy"], true, "{report:#}");
    let steps = report["steps"].as_array().unwrap();
    let of = |name: &str| steps.iter().find(|step| step["name"] == name).unwrap();
    for name in [
        "invite",
        "register",
        "GET with a body",
        "percent-encoded path",
        "large deposit",
        "collect",
        "leave",
    ] {
        assert_eq!(of(name)["verdict"], "ok", "{report:#}");
    }
    let listed = relay.json(&["mailbox", "list"]);
    assert!(listed.as_array().unwrap().iter().all(|mailbox| mailbox["envelopes"] == 0));
    assert_eq!(relay.json(&["mailbox", "invites"]), json!([]));
}

#[test]
fn a_doctor_says_what_to_do_about_a_relay_that_is_down_and_a_key_that_all_can_read() {
    let mut relay = Relay::start();
    relay.stop();
    fs::set_permissions(relay.path("data/signing.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let output = relay.run(&["doctor", "relay"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("FAILED   key file: everybody on this machine can read"), "{text}");
    assert!(
        text.contains("FAILED   operators' door: no relay is running behind data/admin.sock"),
        "{text}"
    );
    assert!(text.contains("FAILED   tcp: "), "{text}");
    assert!(text.matches("what to do: ").count() >= 3, "{text}");
}

#[test]
fn a_command_for_a_relay_that_is_down_says_where_it_looked_and_asks_nobody_who_took_its_port() {
    let mut relay = Relay::start();
    relay.told(&["mailbox", "list"]);
    let config = fs::read_to_string(relay.path("relay.toml")).unwrap();
    let operators = config.split("[operators]\nlisten = \"").nth(1).unwrap();
    let operators = operators.split('"').next().unwrap();
    relay.told(&["mailbox", "list", "--door", &format!("http://{operators}")]);
    relay.stop();

    let squatter = std::net::TcpListener::bind(operators).unwrap();
    squatter.set_nonblocking(true).unwrap();
    let error = relay.refused(&["mailbox", "list"]);

    let expected = "restante: no relay is running behind data/admin.sock";
    assert!(error.starts_with(expected), "{error}");
    assert!(squatter.accept().is_err(), "somebody who took the port was asked");
}

#[test]
fn a_doctor_leaves_nothing_with_a_relay_that_has_another_key() {
    let (relay, other) = (Relay::start(), Relay::start());
    fs::copy(other.path("data/signing.key"), relay.path("data/signing.key")).unwrap();
    let output = relay.run(&["doctor", "relay"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("FAILED   key served: "), "{text}");
    assert!(!text.contains("invite: ") && !text.contains("register: "), "{text}");
}

#[test]
fn an_invite_for_a_script_is_one_line_and_can_be_taken_back() {
    let relay = Relay::start();
    let line = relay.told(&["mailbox", "invite", "--note", "for Ann", "--expires", "2d"]);
    assert!(line.starts_with("restante:") && line.lines().count() == 1, "{line}");
    let invites = relay.json(&["mailbox", "invites"]);
    assert_eq!(invites[0]["note"], "for Ann");
    let id = invites[0]["id"].as_str().unwrap().to_owned();
    relay.told(&["mailbox", "revoke", &id]);
    assert_eq!(relay.json(&["mailbox", "invites"]), json!([]));
    assert!(relay.refused(&["mailbox", "revoke", &id]).starts_with("restante: "));
}

#[test]
fn a_mailbox_is_exported_dropped_and_imported_again() {
    let relay = Relay::start();
    mailbox_with(&relay, 3);
    assert!(relay.told(&["mailbox", "list"]).contains("b.example"));
    let shown = relay.told(&["mailbox", "show", "b.example"]);
    assert!(shown.contains("waiting: 3 envelopes") && shown.contains("a.example"), "{shown}");
    relay.told(&["mailbox", "export", "b.example", "saved"]);
    assert_eq!(fs::metadata(relay.path("saved")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(relay.path("saved")).unwrap().lines().count(), 3);
    let refused = relay.refused(&["mailbox", "drop", "b.example", "--all"]);
    assert!(
        refused.contains("All mail for b.example would be lost for good: 3 envelopes"),
        "{refused}"
    );
    assert_eq!(waiting(&relay), 3);
    let dropped = relay.told(&["mailbox", "drop", "b.example", "--origin", "a.example", "--yes"]);
    assert!(dropped.starts_with("3 envelopes for b.example dropped"), "{dropped}");
    let shown = relay.told(&["mailbox", "show", "b.example"]);
    assert!(shown.contains("dropped  a.example"), "{shown}");
    relay.told(&["mailbox", "import", "b.example", "saved"]);
    assert_eq!(waiting(&relay), 3);
    let again = relay.told(&["mailbox", "import", "b.example", "saved"]);
    assert!(again.ends_with("3 envelopes that had come before skipped\n"), "{again}");
    relay.told(&["mailbox", "hold", "b.example"]);
    assert_eq!(relay.json(&["mailbox", "show", "b.example"])["held"], true);
    relay.told(&["mailbox", "release", "b.example"]);
    assert_eq!(relay.json(&["mailbox", "show", "b.example"])["held"], false);
}

#[test]
fn a_backup_of_a_running_relay_is_restored_into_a_stopped_one_with_other_numbers() {
    let mut relay = Relay::start();
    mailbox_with(&relay, 2);
    let number = |relay: &Relay| {
        relay.json(&["mailbox", "show", "b.example"])["oldest_envelopes"][0]["id"].as_u64().unwrap()
    };
    let before = number(&relay);
    relay.told(&["relay", "backup", "copy"]);
    relay.told(&["mailbox", "drop", "b.example", "--all", "--yes"]);
    let refused = relay.refused(&["relay", "restore", "copy", "--yes"]);
    assert!(refused.contains("stop it before restoring"), "{refused}");
    relay.stop();
    let refused = relay.refused(&["relay", "restore", "copy"]);
    assert!(refused.contains("--yes"), "{refused}");
    let restored = relay.told(&["relay", "restore", "copy", "--yes"]);
    assert!(restored.contains("holds what was backed up: 2 envelopes,"), "{restored}");
    assert!(has_file(&relay.path("data"), "relay.sqlite.before-restore-"));
    relay.start_again();
    assert_eq!(waiting(&relay), 2);
    assert_ne!(number(&relay), before);
}

#[test]
fn a_file_that_is_no_backup_leaves_the_database_as_it_was() {
    let mut relay = Relay::start();
    mailbox_with(&relay, 1);
    relay.stop();
    fs::write(relay.path("junk"), "not a database").unwrap();
    let refused = relay.refused(&["relay", "restore", "junk", "--yes"]);
    assert!(refused.starts_with("restante: the backup can't be used"), "{refused}");
    relay.start_again();
    assert_eq!(waiting(&relay), 1);
}

#[test]
fn a_changed_configuration_is_taken_up_and_a_wrong_one_is_not() {
    let relay = Relay::start();
    let config = fs::read_to_string(relay.path("relay.toml")).unwrap();
    relay.write(
        &config.replace(
            "serve = \"invited\"",
            "serve = \"open\"\ntrusted_proxies = [\"192.0.2.7/32\"]",
        ),
    );
    let text = relay.told(&["config", "reload", "relay"]);
    assert!(
        text.starts_with(
            "in force now: serve\nnot in force before a restart of the relay: trusted_proxies"
        ),
        "{text}"
    );
    assert_eq!(relay.json(&["relay", "status"])["serve"], "open");
    relay.write(&config.replace("serve = \"invited\"", "serve = \"everybody\""));
    let refused = relay.refused(&["relay", "reload"]);
    assert!(refused.contains("everybody"), "{refused}");
    relay.write(&config);
    assert_eq!(relay.json(&["relay", "status"])["serve"], "open");
    let status = relay.told(&["relay", "status"]);
    assert!(status.contains("\nready\n") && status.contains("open: whoever asks"), "{status}");
}

fn has_file(folder: &Path, beginning: &str) -> bool {
    let mut names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.any(|name| name.to_string_lossy().starts_with(beginning))
}
