//! Files with secrets, and the folder of a program's state: for their owner alone from the first moment on, and durable.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Makes the file `path` with this text and mode 0600, durable on return. What was there is replaced.
///
/// Written beside and renamed, so that a crash leaves no half secret behind.
pub fn create_private_file(path: &Path, text: &str) -> io::Result<()> {
    let partial = path.with_extension("partial");
    // What a crash left there may have another mode.
    let _ = fs::remove_file(&partial);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Makes the folder `path` and those above it that are missing, with mode 0700, durable on return. One that is there
/// stays as it is; where others may write in it, the log says so.
///
/// Without the sync of the folder above, a power loss may take the new folder away with all that was synced in it.
pub fn create_private_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        if fs::metadata(path)?.permissions().mode() & OTHERS_WRITE != 0 {
            tracing::warn!(folder = %path.display(), "other users of this machine may replace what is in this folder; make it its owner's alone: chmod 700");
        }
        return Ok(());
    }
    make(path)
}

/// Group or others may write.
const OTHERS_WRITE: u32 = 0o022;

fn make(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    make(above)?;
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        made => made?,
    }
    File::open(above)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_left_behind_neither_stops_the_file_nor_opens_it_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let (path, left) = (folder.path().join("secret"), folder.path().join("secret.partial"));
        fs::write(&left, "half of an older secret").unwrap();
        fs::set_permissions(&left, fs::Permissions::from_mode(0o644)).unwrap();
        create_private_file(&path, "secret").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "secret");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!left.exists());
    }

    #[test]
    fn a_folder_is_made_with_those_above_it_and_one_that_is_there_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let data = folder.path().join("state/restante");
        create_private_folder(&data).unwrap();
        assert_eq!((mode(&data), mode(data.parent().unwrap())), (0o700, 0o700));
        fs::set_permissions(&data, fs::Permissions::from_mode(0o750)).unwrap();
        create_private_folder(&data).unwrap();
        assert_eq!(mode(&data), 0o750);
        fs::write(folder.path().join("file"), "").unwrap();
        create_private_folder(&folder.path().join("file")).unwrap_err();
    }
}
