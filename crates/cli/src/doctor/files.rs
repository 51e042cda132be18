//! Steps on this machine alone: the configuration, the data folder, its disk, and key files.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use restante_federation_proto::SigningKey;
use restante_operators::free_disk_bytes;

use super::report::Outcome;
use crate::amounts_text::bytes;
use crate::args::Program;
use crate::config_check::{self, Severity};
use crate::config_file;

/// Findings that one line shows.
const FINDINGS_SHOWN_MAX: usize = 3;

/// What `restante config check` says.
pub(super) fn configuration(file: &Path, program: Program) -> Outcome {
    let checked = config_check::check(file, Some(program), config_file::variables());
    let checked = match checked {
        Ok(checked) => checked,
        Err(error) => {
            return Outcome::failed(format!("{error:#}"), "give the right file with --config");
        }
    };
    let of = |severity| checked.findings.iter().filter(move |found| found.severity == severity);
    let shown = |found: Vec<String>| {
        found.into_iter().take(FINDINGS_SHOWN_MAX).collect::<Vec<_>>().join("; ")
    };
    let what_to_do = format!("restante config check {}", file.display());
    if checked.errors() > 0 {
        return Outcome::failed(
            shown(of(Severity::Wrong).map(ToString::to_string).collect()),
            what_to_do,
        );
    }
    let odd: Vec<String> = of(Severity::Odd).map(ToString::to_string).collect();
    if odd.is_empty() {
        return Outcome::ok(format!("{} is good", file.display()));
    }
    Outcome::warn(shown(odd), what_to_do)
}

/// The folder of the program's state, for its owner alone.
pub(super) fn data_folder(folder: &Path) -> Outcome {
    let shown = folder.display();
    match fs::metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Outcome::failed(
            format!("{shown} is not there"),
            "start the program once, which makes it; or give the right folder or configuration",
        ),
        Err(error) => Outcome::failed(
            format!("cannot look into {shown}: {error}"),
            "run the doctor as the user that the program runs as, or as root",
        ),
        Ok(metadata) if !metadata.is_dir() => {
            Outcome::failed(format!("{shown} is no folder"), "set data to a folder")
        }
        Ok(metadata) => {
            let mode = metadata.permissions().mode() & 0o777;
            if mode & 0o077 == 0 {
                return Outcome::ok(format!("{shown}, for user {} alone", metadata.uid()));
            }
            Outcome::warn(
                format!("others on this machine may look into {shown} (mode {mode:03o})"),
                format!("chmod 700 {shown}"),
            )
        }
    }
}

/// Room on the disk of the data folder; below `bytes_min` a relay takes no mail.
pub(super) fn disk(folder: &Path, bytes_min: u64) -> Outcome {
    let free = match free_disk_bytes(folder) {
        Ok(free) => free,
        Err(error) => {
            let seen = format!("cannot see how full the disk of {} is: {error}", folder.display());
            return Outcome::warn(seen, "look with df");
        }
    };
    let seen = format!("{} free", bytes(free));
    if free < bytes_min {
        let least = bytes(bytes_min);
        return Outcome::failed(
            format!("{seen}, of which {least} are wanted: no new mail is taken"),
            "free space on this disk, or move the data folder to a larger one",
        );
    }
    if free < bytes_min.saturating_mul(2) {
        return Outcome::warn(
            format!("{seen}; below {} no new mail is taken", bytes(bytes_min)),
            "free space on this disk, or move the data folder to a larger one",
        );
    }
    Outcome::ok(seen)
}

/// A signing key file, with the key if it is one.
pub(super) fn signing_key(file: &Path) -> (Outcome, Option<SigningKey>) {
    let shown = file.display();
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            let what_to_do =
                "let the program's user read it, and run the doctor as that user or as root";
            return (Outcome::failed(format!("cannot read {shown}: {error}"), what_to_do), None);
        }
    };
    let Ok(key) = SigningKey::from_file_text(&text) else {
        let seen = format!("{shown} is no signing key; expected one line: ed25519 VERSION SEED");
        return (Outcome::failed(seen, "put the backup of the key in its place"), None);
    };
    let mode = fs::metadata(file).map_or(0, |metadata| metadata.permissions().mode() & 0o777);
    let outcome = if mode & 0o007 == 0 {
        Outcome::ok(format!("{} in {shown}", key.id()))
    } else {
        Outcome::failed(
            format!(
                "everybody on this machine can read {shown} (mode {mode:03o}), and speak in this server's name"
            ),
            format!("chmod 600 {shown}; if others have accounts here, make a new key"),
        )
    };
    (outcome, Some(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_everybody_can_read_is_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("signing.key");
        fs::write(&file, format!("ed25519 1 {}\n", "A".repeat(43))).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let (outcome, key) = signing_key(&file);
        assert!(outcome.is_failed() && key.is_some(), "{outcome:?}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(!signing_key(&file).0.is_failed());
        assert!(signing_key(&folder.path().join("none")).0.is_failed());
    }

    #[test]
    fn a_disk_with_less_than_is_wanted_is_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        assert!(disk(folder.path(), u64::MAX).is_failed());
        assert!(!disk(folder.path(), 1).is_failed());
    }

    #[test]
    fn a_folder_that_others_can_look_into_is_worth_a_word() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert_ne!(data_folder(folder.path()), Outcome::ok(""));
        assert!(!data_folder(folder.path()).is_failed());
        assert!(data_folder(&folder.path().join("none")).is_failed());
    }
}
