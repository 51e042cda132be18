//! Each measurement runs through with the program as it is built for tests; what it measures in so short a time says nothing.

use std::io::{BufRead as _, BufReader, Lines};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

/// Turns of a few dozen requests.
const BRIEFLY: [&str; 10] = [
    "--seconds",
    "0.02",
    "--turns",
    "1",
    "--connections",
    "4",
    "--mailboxes",
    "100",
    "--sizes",
    "4",
];

fn restante() -> PathBuf {
    std::env::var_os("RESTANTE_BIN").expect("cargo xtask test names the program").into()
}

/// Runs one measurement; what it prints.
fn measured(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_restante-bench"));
    command.arg("--program").arg(restante()).args(arguments);
    let output = command.current_dir(env!("CARGO_TARGET_TMPDIR")).output();
    let output = output.expect("it was built with this test");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {complaints}\n{printed}");
    printed
}

/// The rows of a table of figures that begin so.
fn rows<'a>(printed: &'a str, what: &str) -> Vec<&'a str> {
    let begins = format!("| {what}");
    printed.lines().filter(|line| line.starts_with(&begins)).collect()
}

#[test]
fn load_is_told_beside_its_limits_and_drawn() {
    let svg = "load.svg";
    let printed = measured(&[&["load", "--svg", svg], &BRIEFLY[..]].concat());

    let deposits = rows(&printed, "deposits, 4 KiB ");
    for limit in ["verify", "read", "disk, 64 a sync", "disk, one a sync"] {
        assert!(deposits.iter().any(|row| row.contains(limit)), "{limit}: {printed}");
    }
    for what in [
        "a deposit at half of that, 4 KiB, median",
        "deposits with a proof",
        "deposits, 4 KiB, mailboxes: 100",
        "collects of 50, 4 KiB",
        "acknowledgements of 50",
        "long poll, from deposit to answer, median",
        "mixed, 4 KiB: collected and acknowledged",
    ] {
        assert!(!rows(&printed, what).is_empty(), "{what}: {printed}");
    }
    let verdicts =
        printed.lines().filter(|row| row.ends_with(" met |") || row.ends_with("missed |"));
    assert_eq!(verdicts.count(), 5, "{printed}");
    let drawn = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(svg);
    let drawn = std::fs::read_to_string(drawn).expect("the plot is where it was asked for");
    assert!(drawn.contains("deposits, 4 KiB (verify)"));
}

#[test]
fn another_server_is_compared_turn_by_turn() {
    let other = Relay::start();
    let compared = ["load", "--compare", &other.url, "--compare-name", &other.name];
    let printed = measured(&[&compared[..], &BRIEFLY[..]].concat());
    for what in ["compared: deposits", "compared: collected one at a time"] {
        assert_eq!(rows(&printed, what).len(), 1, "{printed}");
    }
    assert!(rows(&printed, "long poll").is_empty(), "nothing else was asked for: {printed}");
}

#[test]
fn growth_is_told_beside_verification() {
    let briefly = ["--envelopes", "1000", "--bytes", "300", "--seconds", "0.02", "--turns", "1"];
    let printed = measured(&[&["growth"], &briefly[..]].concat());
    let looks = rows(&printed, "deposits, stored: 1000");
    assert!(matches!(looks[..], [look] if look.contains("verify")), "{printed}");
}

#[test]
fn memory_is_told_of_relay_and_node() {
    let printed = measured(&["memory", "--envelopes", "100", "--clients", "10", "--seconds", "1"]);
    assert_eq!(rows(&printed, "relay, ").len(), 3, "{printed}");
    assert_eq!(rows(&printed, "node, at rest").len(), 1, "{printed}");
}

#[test]
fn a_soak_collects_some_mail_and_lets_the_rest_expire() {
    let printed = measured(&["soak", "--minutes", "0.03", "--rate", "32", "--time-to-live", "5"]);
    let collected = printed.split("KiB; ").nth(1).and_then(|rest| rest.split(' ').next());
    let collected: u32 = collected.and_then(|text| text.parse().ok()).expect("a number is told");
    assert!(collected > 0, "{printed}");
}

#[test]
fn what_a_node_adds_is_told() {
    let printed = measured(&["passing", "--transactions", "5"]);
    assert_eq!(rows(&printed, "added by the node, median").len(), 1, "{printed}");
}

/// A relay of its own folder; killed when dropped.
struct Relay {
    child: Child,
    name: String,
    url: String,
    // What it still says needs somebody who could read it.
    _output: Lines<BufReader<ChildStdout>>,
    _folder: tempfile::TempDir,
}

impl Relay {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let file = folder.path().join("relay.toml");
        let config = "listen = \"127.0.0.1:0\"\nfederation = { dns = \"off\" }\n\
                      operators = { listen = \"127.0.0.1:0\" }\n";
        std::fs::write(&file, config).expect("the folder is writable");
        let mut command = Command::new(restante());
        command.args(["relay", "--log", "error", "--config"]).arg(&file);
        command.current_dir(folder.path()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut output = BufReader::new(child.stdout.take().expect("it was piped")).lines();
        let (mut name, mut url) = (None, None);
        for line in output.by_ref().map_while(Result::ok) {
            if let Some(text) = line.strip_prefix("server name") {
                name = Some(text.trim().to_owned());
            } else if let Some(text) = line.strip_prefix("listening on") {
                url = Some(text.trim().to_owned());
            }
            if name.is_some() && url.is_some() {
                break;
            }
        }
        let said = "the relay says it at its start";
        let (name, url) = (name.expect(said), url.expect(said));
        Self { child, name, url, _output: output, _folder: folder }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // One that has ended by itself has failed the test already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
