//! What becomes of a configuration that changed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use restante_operators::{Apply, ConfigSource, FreshConfig, Reload as _, Reloader};

/// A file as a test writes it.
struct File(Mutex<String>);

impl ConfigSource<u64> for File {
    fn read(&self) -> Result<FreshConfig<u64>, String> {
        let keys: toml::Table =
            self.0.lock().unwrap().parse().map_err(|error: toml::de::Error| error.to_string())?;
        let limit = keys.get("limits").and_then(|limits| limits.get("bytes_max"));
        let config = limit.and_then(toml::Value::as_integer).unwrap_or(1).unsigned_abs();
        Ok(FreshConfig { config, keys })
    }
}

/// What it goes by.
struct Program(Arc<AtomicU64>);

#[async_trait::async_trait]
impl Apply<u64> for Program {
    async fn apply(&self, config: &u64) -> Result<(), String> {
        self.0.store(*config, Ordering::Relaxed);
        Ok(())
    }
}

/// A program whose `limits` can change while it runs.
fn program(text: &str) -> (Arc<File>, Arc<AtomicU64>, Reloader<u64>) {
    let file = Arc::new(File(Mutex::new(text.to_owned())));
    let in_force = Arc::new(AtomicU64::new(0));
    let keys = file.read().unwrap().keys;
    let reloader =
        Reloader::new(file.clone(), &keys, &["limits", "serve"], Program(in_force.clone()));
    (file, in_force, reloader)
}

#[tokio::test]
async fn what_can_be_applied_is_and_the_rest_is_named_until_it_is_taken_back() {
    let (file, in_force, reloader) = program("listen = 1\n[limits]\nbytes_max = 5\n");
    *file.0.lock().unwrap() = "listen = 2\n[limits]\nbytes_max = 7\n".to_owned();
    let report = reloader.reload().await;
    assert_eq!(report.applied, ["limits.bytes_max"]);
    assert_eq!(report.needs_restart, ["listen"]);
    assert_eq!((report.error, in_force.load(Ordering::Relaxed)), (None, 7));

    let again = reloader.reload().await;
    assert_eq!((again.applied, again.needs_restart), (vec![], vec!["listen".to_owned()]));
    *file.0.lock().unwrap() = "listen = 1\n".to_owned();
    let back = reloader.reload().await;
    assert_eq!((back.applied, back.needs_restart), (vec!["limits.bytes_max".to_owned()], vec![]));
    assert_eq!(in_force.load(Ordering::Relaxed), 1, "a key that is gone has its default again");
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_says_what_is_wrong() {
    let (file, in_force, reloader) = program("[limits]\nbytes_max = 5\n");
    *file.0.lock().unwrap() = "[limits]\nbytes_max = \n".to_owned();
    let report = reloader.reload().await;
    assert!(report.error.is_some_and(|error| error.contains("line 2")));
    assert_eq!((report.applied.len(), in_force.load(Ordering::Relaxed)), (0, 0));
    *file.0.lock().unwrap() = "[limits]\nbytes_max = 6\n".to_owned();
    assert_eq!(reloader.reload().await.applied, ["limits.bytes_max"]);
}

#[tokio::test]
async fn a_section_is_no_part_of_a_longer_name() {
    let (file, _, reloader) = program("");
    *file.0.lock().unwrap() = "server = 1\nserve = 2\n".to_owned();
    let report = reloader.reload().await;
    assert_eq!(report.applied, ["serve"]);
    assert_eq!(report.needs_restart, ["server"]);
}
