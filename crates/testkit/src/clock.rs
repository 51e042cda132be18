//! Moves the clocks of processes, without asking them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What is preloaded into the processes.
const SOURCE: &str = "clock/ahead.c";

/// The clocks of a process that the test sets.
#[derive(Debug)]
pub(crate) struct MovedClock {
    library: PathBuf,
    ahead: Duration,
    passed: Duration,
    passed_file: PathBuf,
}

impl MovedClock {
    /// A wall clock that is `ahead`. Builds what it takes in `folder`.
    ///
    /// # Panics
    ///
    /// When the system's C compiler, without which Rust can't link either, fails.
    pub(crate) fn ahead(ahead: Duration, folder: &Path) -> Self {
        let library = folder.join("clock-ahead.so");
        if !library.exists() {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(SOURCE);
            let mut compiler = Command::new("cc");
            compiler.args(["-shared", "-fPIC", "-O1", "-D_GNU_SOURCE", "-o"]);
            let status = compiler.arg(&library).arg(source).status();
            let status = status.expect("cc starts: Rust links with it");
            assert!(status.success(), "cc cannot build the library that moves clocks: {status}");
        }
        let passed_file = folder.join("clock-passed");
        let clock = Self { library, ahead, passed: Duration::ZERO, passed_file };
        clock.write_passed();
        clock
    }

    /// The environment in which a process that is started on Linux sees these clocks.
    pub(crate) fn environment(&self) -> Vec<(OsString, OsString)> {
        vec![
            ("LD_PRELOAD".into(), self.library.clone().into_os_string()),
            ("RESTANTE_CLOCK_AHEAD".into(), self.ahead.as_secs().to_string().into()),
            ("RESTANTE_CLOCK_PASSED".into(), self.passed_file.clone().into_os_string()),
        ]
    }

    /// Lets time pass at once on every clock of the processes that run in this environment.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.passed += time;
        self.write_passed();
    }

    /// In place: the processes have the file mapped.
    fn write_passed(&self) {
        let mut file = std::fs::OpenOptions::new();
        let file = file.write(true).create(true).truncate(false).open(&self.passed_file);
        let written = file.and_then(|mut file| {
            std::io::Write::write_all(&mut file, &self.passed.as_secs().to_ne_bytes())
        });
        written.expect("the test's folder is writable");
    }
}
