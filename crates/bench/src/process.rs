//! The relay under measurement: the built program in a folder of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use restante_federation_proto::ServerName;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// A relay that runs; killed when dropped.
pub(crate) struct RelayProcess {
    child: Child,
    pub(crate) server_name: ServerName,
    pub(crate) address: SocketAddr,
    data: PathBuf,
    _folder: tempfile::TempDir,
}

impl RelayProcess {
    /// Starts `program` with `config` beside an address and a folder, and waits until it listens.
    pub(crate) async fn start(program: &Path, mut config: toml::Table) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir_in(".").context("cannot make a folder here")?;
        config.insert("listen".into(), "127.0.0.1:0".into());
        let data = folder.path().join("data");
        config.insert("data".into(), data.to_string_lossy().as_ref().into());
        let operators = toml::Table::from_iter([("listen".to_owned(), "127.0.0.1:0".into())]);
        config.insert("operators".into(), operators.into());
        let file = folder.path().join("relay.toml");
        std::fs::write(&file, toml::to_string(&config)?)?;
        let mut command = Command::new(program);
        command.args(["relay", "--log", "error", "--config"]).arg(&file);
        command.stdout(Stdio::piped()).kill_on_drop(true);
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let stdout = child.stdout.take().context("the program's output was piped")?;
        let (server_name, address) = said_at_start(BufReader::new(stdout)).await?;
        Ok(Self { child, server_name, address, data, _folder: folder })
    }

    /// The folder of its state.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Its resident memory, MiB.
    pub(crate) fn memory_mib(&self) -> anyhow::Result<f64> {
        resident_mib(&self.child)
    }
}

/// The resident memory of a process, MiB.
pub(crate) fn resident_mib(child: &Child) -> anyhow::Result<f64> {
    let pid = child.id().context("the process has ended")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|text| text.trim().strip_suffix(" kB"));
    let kib: f64 = kib.context("the system does not tell its memory")?.parse()?;
    Ok(kib / 1024.0)
}

/// The name and the address in what it prints at its start; the rest of its output is read and dropped.
async fn said_at_start(
    output: BufReader<tokio::process::ChildStdout>,
) -> anyhow::Result<(ServerName, SocketAddr)> {
    let mut lines = output.lines();
    let (mut name, mut address) = (None, None);
    while name.is_none() || address.is_none() {
        let Some(line) = lines.next_line().await? else { bail!("the relay ended at its start") };
        if let Some(text) = line.strip_prefix("server name") {
            name = Some(text.trim().parse()?);
        } else if let Some(text) = line.strip_prefix("listening on") {
            let text = text.trim().trim_start_matches("http://");
            address = Some(text.parse().context("the relay says where it listens")?);
        }
    }
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    name.zip(address).context("both were said")
}

/// A crowd takes a file handle for each of its connections.
pub(crate) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // Where it can't be raised, the connections that fail will say so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
