//! A relay process that is to be killed: another port in each life, so that no call of one life reaches the next.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use restante_federation::Peer;
use restante_testkit::{Port, Process, Program};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout};

use crate::dice::in_time;

/// How to start it.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    program: Program,
    // Held, not read.
    _operators: Option<Arc<Port>>,
}

/// A relay that runs.
pub(crate) struct Victim {
    pub(crate) process: Process,
    // What it prints after it is ready has somewhere to go.
    _output: Lines<BufReader<ChildStdout>>,
    // Whose end tells some that whoever started them is gone.
    _input: ChildStdin,
    pub(crate) peer: Peer,
}

impl Recipe {
    /// `restante relay` with its data in `folder`.
    pub(crate) fn relay(folder: &Path) -> Self {
        let config = folder.join("relay.toml");
        // A handful of servers make the whole load.
        let rates = "requests_per_origin_per_second = 1000000\nrequests_per_origin_burst = 1000000";
        // No life's door for operators gets the port of an earlier life's door for servers, where calls may still come.
        let operators = Port::reserve();
        let listen = operators.address();
        let text = format!(
            "[limits]\n{rates}\n[operators]\nlisten = \"{listen}\"\n[federation]\ndns = \"off\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let arguments = ["relay", "--listen", "127.0.0.1:0", "--log", "warn", "--config"];
        let mut arguments: Vec<OsString> = arguments.map(Into::into).into();
        arguments.extend([config.into(), "--data".into(), folder.join("data").into()]);
        let recipe = Self::of(restante(), arguments, folder);
        Self { _operators: Some(Arc::new(operators)), ..recipe }
    }

    /// Another program that prints the same.
    pub(crate) fn of(executable: PathBuf, arguments: Vec<OsString>, folder: &Path) -> Self {
        let program = Program {
            name: "a relay".to_owned(),
            executable,
            arguments,
            directory: folder.to_owned(),
            log: folder.join("relay.log"),
        };
        Self { program, _operators: None }
    }

    /// Starts it, ready or not.
    pub(crate) fn spawn(&self) -> (Process, ChildStdin, ChildStdout) {
        Process::start_piped(self.program.clone())
    }

    /// Starts it; returns when it says that it listens.
    pub(crate) async fn start(&self) -> Victim {
        let (process, _input, output) = self.spawn();
        let mut output = BufReader::new(output).lines();
        let (mut name, mut url) = (None, None);
        while url.is_none() {
            let line = in_time("the relay gets ready", output.next_line()).await.unwrap();
            let line = line.expect("the relay ended before it was ready");
            name = name
                .or_else(|| line.strip_prefix("server name ").map(|name| name.trim().to_owned()));
            url = line.strip_prefix("listening on ").map(|url| url.trim().to_owned());
        }
        let name = name.expect("the name comes before the address").parse().unwrap();
        let peer = Peer::new(name, url.map(|url| url.parse().unwrap()));
        Victim { process, _output: output, _input, peer }
    }
}

pub(crate) fn restante() -> PathBuf {
    let named = std::env::var_os("RESTANTE_BIN");
    named
        .expect("RESTANTE_BIN is not set; run `cargo xtask crash`, which builds the program")
        .into()
}
