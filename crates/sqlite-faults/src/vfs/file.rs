//! SQLite's interface for open files: what changes a file goes through its folder, the rest straight through.

use std::os::raw::{c_int, c_void};
use std::sync::Arc;

use rusqlite::ffi;

use crate::directory::FileId;
use crate::folder::{Folder, Role};

/// An open file of a watched folder, as SQLite sees it. The file system beneath has its own right behind it.
#[repr(C)]
struct Open {
    base: ffi::sqlite3_file,
    handle: *mut Handle,
}

/// What is known of it.
pub(super) struct Handle {
    pub(super) folder: Arc<Folder>,
    pub(super) id: FileId,
    pub(super) role: Role,
    /// Whether its next sync makes the folder's names durable as well.
    pub(super) with_names: bool,
}

/// Bytes that are ours; a multiple of every alignment that a file beneath may need.
pub(super) const OWN_BYTES: c_int = size_of::<Open>() as c_int;

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    // Without the members for mapped memory: all reads go through `xRead`.
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: Some(map_index),
    xShmLock: Some(lock_index),
    xShmBarrier: Some(order_index),
    xShmUnmap: Some(unmap_index),
    xFetch: None,
    xUnfetch: None,
};

/// The file beneath.
///
/// # Safety
///
/// `file` is memory for a file of the size that was registered.
pub(super) unsafe fn real(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: by the caller's promise it has that many bytes and more.
    unsafe { file.cast::<u8>().add(size_of::<Open>()).cast() }
}

/// Makes an open file of it; the file beneath is open.
///
/// # Safety
///
/// As for [`real`].
pub(super) unsafe fn begin(file: *mut ffi::sqlite3_file, handle: Handle) {
    let open = Open {
        base: ffi::sqlite3_file { pMethods: &METHODS },
        handle: Box::into_raw(Box::new(handle)),
    };
    // SAFETY: by the caller's promise it has the room, and SQLite aligns it.
    unsafe { file.cast::<Open>().write(open) }
}

/// # Safety
///
/// `file` is one that [`begin`] made, and is not closed; SQLite never uses one from two threads at once.
unsafe fn handle<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Handle {
    // SAFETY: by the caller's promise.
    unsafe { &mut *(*file.cast::<Open>()).handle }
}

/// Calls a method of the file beneath; `$absent` is the answer if it has none.
macro_rules! beneath {
    ($file:ident, $method:ident ( $($argument:expr),* ), $absent:expr) => {{
        let real = real($file);
        match (*(*real).pMethods).$method {
            Some(method) => method(real, $($argument),*),
            None => $absent,
        }
    }};
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes an open file once.
    unsafe {
        let closed = beneath!(file, xClose(), ffi::SQLITE_OK);
        drop(Box::from_raw((*file.cast::<Open>()).handle));
        (*file).pMethods = std::ptr::null();
        closed
    }
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    into: *mut c_void,
    count: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: SQLite gives an open file and `count` bytes to write into.
    unsafe {
        let Ok(length) = usize::try_from(count) else { return ffi::SQLITE_IOERR_READ };
        let bytes = std::slice::from_raw_parts_mut(into.cast::<u8>(), length);
        handle(file).folder.read(bytes, |bytes| {
            beneath!(file, xRead(bytes.as_mut_ptr().cast(), count, offset), ffi::SQLITE_IOERR_READ)
        })
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    count: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: SQLite gives an open file and `count` bytes to read from.
    unsafe {
        let Ok(length) = usize::try_from(count) else { return ffi::SQLITE_IOERR_WRITE };
        let bytes = std::slice::from_raw_parts(from.cast::<u8>(), length);
        let Handle { folder, id, .. } = handle(file);
        folder.write(*id, offset.unsigned_abs(), bytes, |bytes| {
            // No longer than `count`.
            let count = bytes.len() as c_int;
            beneath!(file, xWrite(bytes.as_ptr().cast(), count, offset), ffi::SQLITE_IOERR_WRITE)
        })
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: i64) -> c_int {
    // SAFETY: SQLite gives an open file.
    unsafe {
        let Handle { folder, id, .. } = handle(file);
        folder.truncate(*id, length.unsigned_abs(), || {
            beneath!(file, xTruncate(length), ffi::SQLITE_IOERR_TRUNCATE)
        })
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: SQLite gives an open file.
    let Handle { folder, id, role, with_names } = unsafe { handle(file) };
    folder.sync(*id, *role, with_names)
}

unsafe extern "C" fn size(file: *mut ffi::sqlite3_file, answer: *mut i64) -> c_int {
    // SAFETY: SQLite gives an open file and a place for the answer.
    unsafe {
        if is_off(file) {
            return ffi::SQLITE_IOERR_FSTAT;
        }
        beneath!(file, xFileSize(answer), ffi::SQLITE_IOERR_FSTAT)
    }
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite gives an open file.
    unsafe {
        if is_off(file) {
            return ffi::SQLITE_IOERR_LOCK;
        }
        beneath!(file, xLock(level), ffi::SQLITE_OK)
    }
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite gives an open file.
    unsafe { beneath!(file, xUnlock(level), ffi::SQLITE_OK) }
}

unsafe extern "C" fn check_reserved_lock(
    file: *mut ffi::sqlite3_file,
    answer: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives an open file and a place for the answer.
    unsafe { beneath!(file, xCheckReservedLock(answer), ffi::SQLITE_IOERR_CHECKRESERVEDLOCK) }
}

unsafe extern "C" fn control(
    file: *mut ffi::sqlite3_file,
    operation: c_int,
    argument: *mut c_void,
) -> c_int {
    // SAFETY: SQLite gives an open file and what the operation needs.
    unsafe { beneath!(file, xFileControl(operation, argument), ffi::SQLITE_NOTFOUND) }
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite gives an open file.
    unsafe { beneath!(file, xSectorSize(), 0) }
}

unsafe extern "C" fn characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite gives an open file.
    unsafe { beneath!(file, xDeviceCharacteristics(), 0) }
}

unsafe extern "C" fn map_index(
    file: *mut ffi::sqlite3_file,
    page: c_int,
    page_bytes: c_int,
    extend: c_int,
    answer: *mut *mut c_void,
) -> c_int {
    // SAFETY: SQLite gives an open file and a place for the answer.
    unsafe {
        if is_off(file) {
            return ffi::SQLITE_IOERR_SHMMAP;
        }
        beneath!(file, xShmMap(page, page_bytes, extend, answer), ffi::SQLITE_IOERR_SHMMAP)
    }
}

unsafe extern "C" fn lock_index(
    file: *mut ffi::sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: SQLite gives an open file.
    unsafe {
        if is_off(file) && flags & ffi::SQLITE_SHM_LOCK != 0 {
            return ffi::SQLITE_IOERR_SHMLOCK;
        }
        beneath!(file, xShmLock(offset, count, flags), ffi::SQLITE_IOERR_SHMLOCK)
    }
}

unsafe extern "C" fn order_index(file: *mut ffi::sqlite3_file) {
    // SAFETY: SQLite gives an open file.
    unsafe { beneath!(file, xShmBarrier(), ()) }
}

unsafe extern "C" fn unmap_index(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    // SAFETY: SQLite gives an open file.
    unsafe { beneath!(file, xShmUnmap(delete), ffi::SQLITE_OK) }
}

/// # Safety
///
/// As for [`handle`].
unsafe fn is_off(file: *mut ffi::sqlite3_file) -> bool {
    // SAFETY: by the caller's promise.
    unsafe { handle(file) }.folder.plan(|plan| plan.is_off())
}
