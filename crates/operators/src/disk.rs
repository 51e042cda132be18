//! How much room a disk has left.

use std::io;
use std::path::Path;

/// Bytes that programs without special rights may still write to the disk that holds `folder`.
pub fn free_disk_bytes(folder: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(folder)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}
