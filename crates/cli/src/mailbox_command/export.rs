//! `restante mailbox export`: all mail of a mailbox, one envelope a line. The file is there whole, or not at all.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use restante_federation_proto::ServerName;
use serde::Deserialize;

use super::{list, target};
use crate::admin_client::AdminClient;
use crate::amounts_text::{bytes, envelopes};
use crate::progress::Progress;

/// What of a line says where the next question goes on.
#[derive(Deserialize)]
struct Numbered {
    id: u64,
}

/// What was written.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Written {
    envelopes: u64,
    bytes: u64,
}

/// Tells what was written; nothing when the mail itself goes to standard output.
pub(super) async fn run(
    client: &AdminClient,
    server: &ServerName,
    file: &Path,
) -> anyhow::Result<Option<String>> {
    if file == Path::new("-") {
        let mut output = BufWriter::new(io::stdout().lock());
        copy(client, server, &mut output).await?;
        output.flush().context("cannot write to standard output")?;
        return Ok(None);
    }
    let written = to_file(client, server, file).await?;
    Ok(Some(format!(
        "{} for {server} in {}, {}; the mailbox still has them\n\
         to put them into a mailbox again: restante mailbox import {server} {}",
        envelopes(written.envelopes),
        file.display(),
        bytes(written.bytes),
        file.display()
    )))
}

async fn to_file(
    client: &AdminClient,
    server: &ServerName,
    file: &Path,
) -> anyhow::Result<Written> {
    if fs::symlink_metadata(file).is_ok() {
        bail!("{} is there already; choose another name for the export", file.display());
    }
    let partial = Partial::create(file)?;
    let mut output = BufWriter::new(&partial.file);
    let written = copy(client, server, &mut output).await?;
    output.flush().with_context(|| format!("cannot write {}", file.display()))?;
    drop(output);
    partial.finish()?;
    Ok(written)
}

/// Asks again after the last envelope that came, until none comes: whatever the relay gives at once.
async fn copy(
    client: &AdminClient,
    server: &ServerName,
    output: &mut impl Write,
) -> anyhow::Result<Written> {
    let total = list::line(&client.get(&target(server, "")).await?)?.envelopes;
    let progress = Progress::counted("exporting", total);
    let (mut written, mut after) = (Written::default(), None::<u64>);
    loop {
        let before = written.envelopes;
        let query = after.map_or_else(String::new, |after| format!("?after={after}"));
        let mut lines = client.lines(&target(server, &format!("/export{query}"))).await?;
        while let Some(mut line) = lines.next().await? {
            let Numbered { id } = serde_json::from_slice(&line)
                .context("a line of the relay's answer is no envelope")?;
            after = Some(id);
            line.push(b'\n');
            output.write_all(&line).context("cannot write the export")?;
            written.envelopes += 1;
            written.bytes += line.len() as u64;
            progress.at(written.envelopes);
        }
        if written.envelopes == before {
            return Ok(written);
        }
    }
}

/// A file beside the one that is meant, for its owner alone; gone if it is not finished.
struct Partial {
    file: File,
    path: PathBuf,
    meant: PathBuf,
}

impl Partial {
    fn create(meant: &Path) -> anyhow::Result<Self> {
        let name = meant.file_name().with_context(|| format!("{} is no file", meant.display()))?;
        let mut beside = OsString::from(".");
        beside.push(name);
        beside.push(".partial");
        let path = meant.with_file_name(beside);
        // What an earlier export left when it was killed may be of another mode.
        let _ = fs::remove_file(&path);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { file, path, meant: meant.to_owned() })
    }

    fn finish(self) -> anyhow::Result<()> {
        let failed = || format!("cannot finish {}", self.meant.display());
        self.file.sync_all().with_context(failed)?;
        // Unlike a rename, a link takes no file's place that has come meanwhile.
        fs::hard_link(&self.path, &self.meant).with_context(failed)?;
        let folder = self.meant.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))
            .and_then(|folder| folder.sync_all())
            .with_context(failed)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Finished, it has its own name beside; else it is half an export.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::scripted_door::ScriptedDoor;

    const MAILBOX: &str = "/_restante/admin/v1/mailboxes/b.example";

    async fn door() -> ScriptedDoor {
        let door = ScriptedDoor::open().await;
        let mailbox = r#"{"recipient":"b.example","envelopes":3,"bytes":30,"oldest_at":1,"quarantined":0,
            "held":false,"registered":true,"acknowledged_total":0,"expired_total":0,"dropped_total":0}"#;
        door.answer("GET", MAILBOX, 200, mailbox);
        door.answer("GET", &format!("{MAILBOX}/export"), 200, "{\"id\":5}\n{\"id\":7}\n");
        door.answer("GET", &format!("{MAILBOX}/export?after=7"), 200, "{\"id\":9}\n");
        door.answer("GET", &format!("{MAILBOX}/export?after=9"), 200, "");
        door
    }

    #[tokio::test]
    async fn an_export_holds_every_envelope_and_is_its_owners_alone() {
        let (door, folder) = (door().await, tempfile::tempdir().unwrap());
        let file = folder.path().join("mail");
        let server = "b.example".parse().unwrap();
        let written = to_file(&door.client(), &server, &file).await.unwrap();
        assert_eq!(written, Written { envelopes: 3, bytes: 27 });
        assert_eq!(fs::read_to_string(&file).unwrap(), "{\"id\":5}\n{\"id\":7}\n{\"id\":9}\n");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let error = to_file(&door.client(), &server, &file).await.unwrap_err();
        assert!(error.to_string().ends_with("choose another name for the export"), "{error}");
    }

    #[tokio::test]
    async fn an_export_that_breaks_off_leaves_no_file() {
        let (door, folder) = (door().await, tempfile::tempdir().unwrap());
        door.answer("GET", &format!("{MAILBOX}/export?after=7"), 200, "{\"id\":9}\n{\"id\":");
        let file = folder.path().join("mail");
        let server = "b.example".parse().unwrap();
        let error = to_file(&door.client(), &server, &file).await.unwrap_err();
        assert_eq!(error.to_string(), "the answer broke off within a line");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
