//! SQLite's interface for file systems: the way in, and the watched folders.
//!
//! The only global state of the crate, since SQLite's own list of file systems is global.

#![allow(unsafe_code, reason = "SQLite's interface is made of raw pointers")]

mod file;

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr};
use std::io;
use std::os::raw::{c_char, c_int};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rusqlite::ffi;

use crate::folder::{Folder, Role};

static WATCHED: Mutex<BTreeMap<PathBuf, Arc<Folder>>> = Mutex::new(BTreeMap::new());

pub(crate) fn watch(folder: Arc<Folder>) {
    watched().insert(folder.path().to_owned(), folder);
}

pub(crate) fn forget(folder: &Path) {
    watched().remove(folder);
}

fn watched() -> MutexGuard<'static, BTreeMap<PathBuf, Arc<Folder>>> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts this file system under all connections that are opened from then on.
pub(crate) fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<c_int> = OnceLock::new();
    match *INSTALLED.get_or_init(register) {
        ffi::SQLITE_OK => Ok(()),
        code => Err(io::Error::other(format!("SQLite refuses the file system: {code}"))),
    }
}

fn register() -> c_int {
    // SAFETY: a null name asks for the default, which SQLite keeps for ever.
    let real = unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) };
    if real.is_null() {
        return ffi::SQLITE_ERROR;
    }
    // SAFETY: it is not null, and SQLite does not change it. Of the functions that are copied, none looks at the
    // members that are changed here.
    let real_vfs = unsafe { *real };
    let ours = ffi::sqlite3_vfs {
        szOsFile: real_vfs.szOsFile + file::OWN_BYTES,
        pNext: std::ptr::null_mut(),
        zName: c"restante-faults".as_ptr(),
        pAppData: real.cast(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        ..real_vfs
    };
    // SAFETY: it is complete, and is never freed.
    unsafe { ffi::sqlite3_vfs_register(Box::leak(Box::new(ours)), 1) }
}

/// The file system beneath.
///
/// # Safety
///
/// `vfs` is the one that [`register`] made.
unsafe fn beneath(vfs: *mut ffi::sqlite3_vfs) -> *mut ffi::sqlite3_vfs {
    // SAFETY: by the caller's promise; `register` put it there.
    unsafe { (*vfs).pAppData.cast() }
}

/// The watched folder of a file, and the file's name in it.
///
/// # Safety
///
/// `path` is null or a string that ends with a zero byte.
unsafe fn place(path: *const c_char) -> Option<(Arc<Folder>, String)> {
    if path.is_null() {
        return None;
    }
    // SAFETY: by the caller's promise.
    let path = unsafe { CStr::from_ptr(path) };
    let path = Path::new(OsStr::from_bytes(path.to_bytes()));
    let folder = watched().get(path.parent()?)?.clone();
    Some((folder, path.file_name()?.to_str()?.to_owned()))
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    path: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite calls it with what it registered, a path that is null or a string, and memory for a file of ours,
    // which is more than the file system beneath needs.
    unsafe {
        let real = beneath(vfs);
        let Some(real_open) = (*real).xOpen else { return ffi::SQLITE_CANTOPEN };
        let Some((folder, name)) = place(path) else {
            return real_open(real, path, file, flags, out_flags);
        };
        let flags = if folder.plan(|plan| plan.is_read_only) { for_reading(flags) } else { flags };
        (*file).pMethods = std::ptr::null();
        match folder.open(&name, || real_open(real, path, file::real(file), flags, out_flags)) {
            Ok(id) => {
                let with_names = syncs_names(flags);
                file::begin(file, file::Handle { folder, id, role: role(flags), with_names });
                ffi::SQLITE_OK
            }
            Err(code) => code,
        }
    }
}

fn for_reading(flags: c_int) -> c_int {
    flags & !(ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE) | ffi::SQLITE_OPEN_READONLY
}

fn role(flags: c_int) -> Role {
    if flags & ffi::SQLITE_OPEN_WAL != 0 { Role::Log } else { Role::Other }
}

/// SQLite syncs the folder together with the first sync of a journal or log that it may have created, and of nothing
/// else.
fn syncs_names(flags: c_int) -> bool {
    let journal =
        ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL | ffi::SQLITE_OPEN_WAL;
    flags & ffi::SQLITE_OPEN_CREATE != 0 && flags & journal != 0
}

unsafe extern "C" fn delete(
    vfs: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    with_names: c_int,
) -> c_int {
    // SAFETY: SQLite calls it with what it registered and a string.
    unsafe {
        let real = beneath(vfs);
        let Some(real_delete) = (*real).xDelete else { return ffi::SQLITE_IOERR_DELETE };
        match place(path) {
            // Nothing is synced for real.
            Some((folder, name)) => {
                folder.delete(&name, with_names & 1 != 0, || real_delete(real, path, 0))
            }
            None => real_delete(real, path, with_names),
        }
    }
}

unsafe extern "C" fn access(
    vfs: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    flags: c_int,
    answer: *mut c_int,
) -> c_int {
    // SAFETY: SQLite calls it with what it registered, a string, and a place for the answer.
    unsafe {
        let real = beneath(vfs);
        let Some(real_access) = (*real).xAccess else { return ffi::SQLITE_IOERR_ACCESS };
        if place(path).is_some_and(|(folder, _)| folder.plan(|plan| plan.is_off())) {
            return ffi::SQLITE_IOERR_ACCESS;
        }
        real_access(real, path, flags, answer)
    }
}
