//! Puts the wall clock of processes ahead, without asking them.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// What is preloaded into the processes.
const SOURCE: &str = "clock/ahead.c";

/// The environment in which a process started on Linux sees a clock that is `ahead`. Builds what it takes in `folder`.
///
/// # Panics
///
/// When the system's C compiler, without which Rust can't link either, fails.
pub(crate) fn environment_ahead(ahead: Duration, folder: &Path) -> Vec<(OsString, OsString)> {
    let library = folder.join("clock-ahead.so");
    if !library.exists() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(SOURCE);
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-D_GNU_SOURCE", "-o"]).arg(&library).arg(source);
        let status = compiler.status().expect("cc starts: Rust links with it");
        assert!(status.success(), "cc cannot build the library that sets clocks ahead: {status}");
    }
    let seconds = ahead.as_secs().to_string();
    vec![
        ("LD_PRELOAD".into(), library.into_os_string()),
        ("RESTANTE_CLOCK_AHEAD".into(), seconds.into()),
    ]
}
