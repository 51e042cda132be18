//! `restante mailbox import`: puts the lines of an export into a mailbox, in batches that a relay takes at once.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use http::Method;
use restante_federation_proto::ServerName;

use super::{number, target};
use crate::admin_client::AdminClient;
use crate::amounts_text::envelopes;
use crate::progress::Progress;

/// Lines of one batch; and no further line is added to one of this size, so that neither side holds much at once.
const BATCH_LINES_MAX: usize = 500;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// A batch is one durable commit, on a disk that may be slow.
const BATCH_DEADLINE: Duration = Duration::from_secs(60);

/// Tells what was put where.
pub(super) async fn run(
    client: &AdminClient,
    server: &ServerName,
    file: &Path,
) -> anyhow::Result<String> {
    let failed = || format!("cannot read {}", file.display());
    let input = File::open(file).with_context(failed)?;
    let progress = Progress::sized("importing", input.metadata().with_context(failed)?.len());
    let mut input = BufReader::new(input);
    let (mut read, mut imported, mut duplicates) = (0, 0, 0);
    loop {
        let batch = batch(&mut input).with_context(failed)?;
        if batch.is_empty() {
            break;
        }
        let size = batch.len() as u64;
        let answer = send(client, server, batch).await.with_context(|| {
            format!(
                "stopped after {}; those stay, and importing the file again skips them",
                envelopes(imported)
            )
        })?;
        imported += number(&answer, "imported")?;
        duplicates += number(&answer, "duplicates")?;
        read += size;
        progress.at(read);
    }
    drop(progress);
    let skipped = match duplicates {
        0 => String::new(),
        count => format!("; {} that had come before skipped", envelopes(count)),
    };
    Ok(format!("{} put into the mailbox of {server}{skipped}", envelopes(imported)))
}

async fn send(
    client: &AdminClient,
    server: &ServerName,
    batch: Vec<u8>,
) -> anyhow::Result<serde_json::Value> {
    client.call(Method::POST, &target(server, "/import"), batch).await
}

/// The next lines, whole; empty at the end.
fn batch(input: &mut BufReader<File>) -> std::io::Result<Vec<u8>> {
    let mut batch = Vec::new();
    for _ in 0..BATCH_LINES_MAX {
        if batch.len() >= BATCH_BYTES || input.read_until(b'\n', &mut batch)? == 0 {
            break;
        }
    }
    Ok(batch)
}

/// A client with the patience that batches need.
pub(super) fn patient(client: AdminClient) -> AdminClient {
    client.patient(BATCH_DEADLINE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted_door::ScriptedDoor;

    #[tokio::test]
    async fn a_file_is_imported_in_batches_and_the_answers_are_summed_up() {
        let door = ScriptedDoor::open().await;
        let target = "/_restante/admin/v1/mailboxes/b.example/import";
        door.answer("POST", target, 200, r#"{"imported":400,"duplicates":1}"#);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mail");
        std::fs::write(&file, "{}\n".repeat(BATCH_LINES_MAX + 2)).unwrap();
        let text = run(&door.client(), &"b.example".parse().unwrap(), &file).await.unwrap();
        assert_eq!(
            text,
            "800 envelopes put into the mailbox of b.example; 2 envelopes that had come before skipped"
        );
        let lines: Vec<usize> =
            door.asked().iter().map(|asked| asked.body.lines().count()).collect();
        assert_eq!(lines, [BATCH_LINES_MAX, 2]);
    }

    #[tokio::test]
    async fn an_import_that_fails_says_what_stays() {
        let door = ScriptedDoor::open().await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mail");
        std::fs::write(&file, "{}\n").unwrap();
        let error = run(&door.client(), &"b.example".parse().unwrap(), &file).await.unwrap_err();
        assert!(
            format!("{error:#}").starts_with("stopped after 0 envelopes; those stay"),
            "{error:#}"
        );
    }
}
