//! Watches how much room the disk has, so that mail is refused before nothing works any more.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How often to look. The largest deposits fill some hundred megabytes in that time, which is what the default
/// threshold leaves.
const INTERVAL: Duration = Duration::from_secs(5);

/// Where the store's files lie.
pub trait Disk: Send + Sync + 'static {
    /// Bytes that can still be written.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// The file system of a folder.
#[derive(Debug, Clone)]
pub struct FolderDisk(pub PathBuf);

impl Disk for FolderDisk {
    fn free_bytes(&self) -> io::Result<u64> {
        let of_file_system = rustix::fs::statvfs(&self.0)?;
        Ok(of_file_system.f_bavail.saturating_mul(of_file_system.f_frsize))
    }
}

/// For a store that is on no disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoDisk;

impl Disk for NoDisk {
    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

/// Whether there is room for mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Enough,
    /// Nothing is taken; collecting and acknowledging go on.
    Low,
}

/// What the disk had when it was looked at last.
pub(crate) struct DiskWatch {
    disk: Arc<dyn Disk>,
    free_bytes: AtomicU64,
}

impl DiskWatch {
    /// Looks for the first time.
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        let watch = Self { disk, free_bytes: AtomicU64::new(u64::MAX) };
        watch.look();
        watch
    }

    /// Free bytes at the last look.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }

    /// Whether at least `min` bytes were free at the last look.
    pub(crate) fn room(&self, min: u64) -> Room {
        if self.free_bytes() >= min { Room::Enough } else { Room::Low }
    }

    /// A disk that does not answer is not taken for a full one: the next write will tell.
    fn look(&self) {
        match self.disk.free_bytes() {
            Ok(free) => self.free_bytes.store(free, Ordering::Relaxed),
            Err(error) => tracing::warn!(%error, "cannot ask how much room the disk has"),
        }
    }

    /// Looks until `shutdown`, and says when room gets low and when it is back. `min` is what must be free.
    pub(crate) async fn run(&self, min: impl Fn() -> u64, shutdown: CancellationToken) {
        let mut told = Room::Enough;
        while !shutdown.is_cancelled() {
            self.look();
            let (min, room) = (min(), self.room(min()));
            if room != told {
                told = room;
                self.tell(room, min);
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    fn tell(&self, room: Room, min: u64) {
        let free = self.free_bytes();
        match room {
            Room::Low => tracing::error!(
                disk.free_bytes = free,
                disk.free_bytes_min = min,
                "the disk is low: no mail is taken until there is room again; collecting goes on"
            ),
            Room::Enough => {
                tracing::info!(disk.free_bytes = free, "the disk has room again; mail is taken");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Script(AtomicU64);

    impl Disk for Script {
        fn free_bytes(&self) -> io::Result<u64> {
            match self.0.load(Ordering::Relaxed) {
                0 => Err(io::ErrorKind::Other.into()),
                free => Ok(free),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_what_the_last_look_found() {
        let disk = Arc::new(Script(AtomicU64::new(100)));
        let watch = Arc::new(DiskWatch::new(disk.clone()));
        assert_eq!((watch.room(100), watch.room(101)), (Room::Enough, Room::Low));
        let shutdown = CancellationToken::new();
        let (watching, stop) = (watch.clone(), shutdown.clone());
        let running = tokio::spawn(async move { watching.run(|| 50, stop).await });
        for (free, room) in [(49, Room::Low), (0, Room::Low), (50, Room::Enough)] {
            disk.0.store(free, Ordering::Relaxed);
            tokio::time::sleep(INTERVAL * 2).await;
            assert_eq!(watch.room(50), room, "{free}");
        }
        shutdown.cancel();
        running.await.unwrap();
    }

    #[test]
    fn the_disk_of_a_folder_has_some_room() {
        let folder = tempfile::tempdir().unwrap();
        assert!(FolderDisk(folder.path().to_owned()).free_bytes().unwrap() > 0);
        assert!(FolderDisk(folder.path().join("missing")).free_bytes().is_err());
    }
}
