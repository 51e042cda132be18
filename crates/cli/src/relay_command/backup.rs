//! `restante relay backup` and `restante relay restore`.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown, lchown};
use std::path::{Path, PathBuf, absolute};
use std::time::Duration;

use anyhow::{Context as _, bail};
use restante_federation::create_private_folder;
use restante_federation_proto::{Clock as _, SystemClock, Timestamp};
use restante_mailbox::{Restored, SqliteStore};
use restante_relay::RelayConfig;
use rustix::fs::OFlags;
use serde_json::json;

use crate::admin_client::AdminClient;
use crate::amounts_text::{bytes, envelopes};
use crate::confirmation::{Consent, confirm};

/// In the data folder.
const DATABASE: &str = "relay.sqlite";

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
        "{text} holds all mailboxes, {}; copy the relay's signing key and, if mail is encrypted at rest, its key file, too, and keys.sqlite while the relay is stopped\n\
         to put it back, with the relay stopped: restante relay restore {text}",
        bytes(size)
    ))
}

/// Puts the copy in the place of a stopped relay's database, which is kept under another name.
pub(super) async fn restore(
    config: &RelayConfig,
    file: &Path,
    consent: Consent,
) -> anyhow::Result<String> {
    let database = config.data.join(DATABASE);
    if !file.is_file() {
        bail!("{} is no backup; give the file that restante relay backup wrote", file.display());
    }
    create_private_folder(&config.data)
        .with_context(|| format!("cannot create {}", config.data.display()))?;
    let _stopped = Stopped::of(&database)?;
    if database.exists() {
        confirm(&loss(&database), consent)?;
    }
    let (backup, place) = (file.to_owned(), database.clone());
    let now = SystemClock.now();
    let replaced = tokio::task::spawn_blocking(move || replace(&backup, &place, now)).await?;
    let Replaced { restored, before } = replaced?;
    let before = before.map_or_else(String::new, |before| {
        format!("\nwhat was there before is in {}; delete it when all is well", before.display())
    });
    Ok(format!(
        "{} holds what was backed up: {}, with new numbers{before}\n\
         start the relay as you usually do",
        database.display(),
        envelopes(restored.envelopes)
    ))
}

fn loss(database: &Path) -> String {
    format!(
        "The relay would go on without the mail that came since the backup, and mail that was collected since would come again; what is in {} is kept beside it.",
        database.display()
    )
}

/// The lock of a relay's database: whoever holds it knows that no relay runs, and that none starts.
struct Stopped {
    _lock: File,
}

impl Stopped {
    fn of(database: &Path) -> anyhow::Result<Self> {
        let path = beside(database, ".lock");
        // Root restores in a folder that the relay's user writes: a link there could lead to any file of the machine.
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path);
        let lock = lock.with_context(|| {
            format!("cannot open {}; if it is a symbolic link, delete it", path.display())
        })?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("a relay runs on {}; stop it before restoring", database.display())
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        give_to_owner_of_folder(&path, &lock.metadata()?, |user, group| {
            fchown(&lock, user, group)
        })?;
        Ok(Self { _lock: lock })
    }
}

/// What came of it, and where what was there before is.
struct Replaced {
    restored: Restored,
    before: Option<PathBuf>,
}

fn replace(backup: &Path, database: &Path, now: Timestamp) -> anyhow::Result<Replaced> {
    let before = beside(database, &format!(".before-restore-{}", now.as_millis()));
    let was_there = database.exists();
    rename_all(database, &before)?;
    let restored = SqliteStore::restore(backup, database).inspect_err(|_| {
        // As it was; what can't be named back is where the message of the restore does not say, so the log does.
        if let Err(error) = rename_all(&before, database) {
            tracing::error!(%error, before = %before.display(), "rename it back by hand");
        }
    })?;
    let is = fs::symlink_metadata(database)?;
    give_to_owner_of_folder(database, &is, |user, group| lchown(database, user, group))?;
    Ok(Replaced { restored, before: was_there.then_some(before) })
}

/// The database with its log, which belongs to it.
fn rename_all(from: &Path, to: &Path) -> anyhow::Result<()> {
    for ending in ["", "-wal", "-shm"] {
        let (from, to) = (beside(from, ending), beside(to, ending));
        match fs::rename(&from, &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot rename {}", from.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whoever restores is often root, and the relay is not. `give` must follow no symbolic link.
fn give_to_owner_of_folder(
    file: &Path,
    is: &Metadata,
    give: impl FnOnce(Option<u32>, Option<u32>) -> io::Result<()>,
) -> anyhow::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let owner = fs::metadata(folder.unwrap_or(Path::new(".")))?;
    if (is.uid(), is.gid()) == (owner.uid(), owner.gid()) {
        return Ok(());
    }
    give(Some(owner.uid()), Some(owner.gid())).with_context(|| {
        format!("cannot give {} to the relay's user; run this as root", file.display())
    })
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
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

    #[test]
    fn a_lock_that_is_a_symbolic_link_leads_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join(DATABASE);
        let elsewhere = folder.path().join("elsewhere");
        let lock = beside(&database, ".lock");
        std::os::unix::fs::symlink(&elsewhere, &lock).unwrap();
        let refused = Stopped::of(&database).err().unwrap();
        assert!(format!("{refused:#}").contains("symbolic link, delete it"), "{refused:#}");
        assert!(!elsewhere.exists(), "nothing was created at the link's end");
        fs::remove_file(&lock).unwrap();
        assert!(Stopped::of(&database).is_ok());
    }
}
