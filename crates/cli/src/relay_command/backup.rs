//! `restante relay backup` and `restante relay restore`.

use std::path::{Path, PathBuf, absolute};
use std::time::Duration;

use anyhow::{Context as _, bail};
use restante_relay::RelayConfig;
use serde_json::json;

use crate::admin_client::AdminClient;
use crate::amounts_text::bytes;
use crate::confirmation::{Consent, confirm};

/// A large database on a slow disk: 100 GiB at 30 MiB/s.
const DEADLINE: Duration = Duration::from_secs(3600);

/// Has the running relay write the copy.
pub(super) async fn make(client: AdminClient, file: &Path) -> anyhow::Result<String> {
    // The relay may have been started in another folder.
    let file = absolute(file).with_context(|| format!("{} is no file", file.display()))?;
    let text = file.to_str().context("the name of a backup must be UTF-8")?;
    let answer = client.patient(DEADLINE).post("/backup", &json!({ "file": text })).await?;
    let size = answer["bytes"].as_u64().context("the relay's answer has no size")?;
    Ok(format!(
        "{text} holds all mailboxes, {}; copy the relay's signing key and, if mail is encrypted at rest, its key file, too\n\
         to put it back, with the relay stopped: restante relay restore {text}",
        bytes(size)
    ))
}

/// Puts the copy in place of a stopped relay's database.
pub(super) async fn restore(
    config: &RelayConfig,
    file: &Path,
    consent: Consent,
) -> anyhow::Result<String> {
    let database = config.data.join("relay.sqlite");
    if !file.is_file() {
        bail!("{} is no backup; give the file that restante relay backup wrote", file.display());
    }
    if database.exists() {
        confirm(&loss(&database), consent)?;
    }
    replace(file.to_owned(), database.clone()).await?;
    Ok(format!(
        "{} holds what was backed up, with new numbers for its envelopes\n\
         start the relay: restante relay --data {}",
        database.display(),
        config.data.display()
    ))
}

fn loss(database: &Path) -> String {
    format!(
        "All mail in {} that is not in the backup would be lost for good, and mail that was collected since the backup would come again.",
        database.display()
    )
}

async fn replace(_backup: PathBuf, _database: PathBuf) -> anyhow::Result<()> {
    todo!()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted_door::ScriptedDoor;

    #[tokio::test]
    async fn the_relay_is_told_the_whole_path() {
        let door = ScriptedDoor::open().await;
        door.answer("POST", "/_restante/admin/v1/backup", 200, r#"{"bytes":2048}"#);
        let text = make(door.client(), Path::new("mail.backup")).await.unwrap();
        assert!(text.contains("/mail.backup holds all mailboxes, 2.0 KiB"), "{text}");
        let body: serde_json::Value = serde_json::from_str(&door.asked()[0].body).unwrap();
        assert!(Path::new(body["file"].as_str().unwrap()).is_absolute());
    }
}
