//! A file that a web server reads while it is written: it is there whole, the earlier or the later one.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Said where the file can't be written.
pub(crate) const ADVICE: &str = "let the node's user write in the folder of records.well_known_file, which must be there; \
     under systemd name the folder in ReadWritePaths, and a group that may write there in SupplementaryGroups";

/// Who may do what with the file.
const MODE: u32 = 0o644;

/// What of it everybody needs.
const READABLE: u32 = 0o444;

/// What became of writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// The file says something else than before.
    Anew,
    /// The file said that already.
    AsBefore,
}

/// Makes `path` a file that holds `content` and that everybody may read.
pub(super) fn write(path: &Path, content: &[u8]) -> io::Result<Written> {
    if fs::read(path).is_ok_and(|before| before == content) {
        if fs::metadata(path)?.permissions().mode() & READABLE != READABLE {
            fs::set_permissions(path, Permissions::from_mode(MODE))?;
        }
        return Ok(Written::AsBefore);
    }
    let beside = beside(path)?;
    // What a crash left there is of no use.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let replaced = create(&beside, content).and_then(|()| fs::rename(&beside, path));
    replaced.inspect_err(|_| drop(fs::remove_file(&beside)))?;
    Ok(Written::Anew)
}

fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    // The web server is another user, whatever mask the node was started with.
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.write_all(content)?;
    file.sync_all()
}

fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::other("it names no file"))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".restante-new");
    Ok(path.with_file_name(hidden))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("restante");
        fs::write(folder.path().join(".restante.restante-new"), "half of a").unwrap();
        assert_eq!(write(&path, b"{\"a\":1}").unwrap(), Written::Anew);
        assert_eq!(write(&path, b"{\"a\":1}").unwrap(), Written::AsBefore);
        assert_eq!(write(&path, b"{}").unwrap(), Written::Anew);
        assert_eq!(fs::read(&path).unwrap(), b"{}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o644);
        for (changed, expected) in [(0o600, 0o644), (0o664, 0o664)] {
            fs::set_permissions(&path, Permissions::from_mode(changed)).unwrap();
            assert_eq!(write(&path, b"{}").unwrap(), Written::AsBefore);
            assert_eq!(mode(), expected, "what everybody may read stays as it is");
        }
    }

    #[test]
    fn what_can_not_be_written_is_an_error_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert!(write(&folder.path().join("none/restante"), b"{}").is_err());
        assert!(write(Path::new("/"), b"{}").is_err());
        fs::create_dir_all(folder.path().join("taken/by/a/folder")).unwrap();
        assert!(write(&folder.path().join("taken"), b"{}").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
