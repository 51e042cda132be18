//! A bar for work that takes long. It is drawn on standard error, and only on a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// What the bar shows.
const COUNTED: &str = "{msg} {bar:30} {pos} of {len} ({eta} left)";
const SIZED: &str = "{msg} {bar:30} {binary_bytes} of {binary_total_bytes} ({eta} left)";

/// A bar that vanishes when the work ends, whichever way.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Work on `total` things.
    pub(crate) fn counted(what: &'static str, total: u64) -> Self {
        Self::new(what, total, COUNTED)
    }

    /// Work on `total` bytes.
    pub(crate) fn sized(what: &'static str, total: u64) -> Self {
        Self::new(what, total, SIZED)
    }

    fn new(what: &'static str, total: u64, template: &str) -> Self {
        let bar = ProgressBar::new(total).with_message(what);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// So much has been done by now.
    pub(crate) fn at(&self, done: u64) {
        self.0.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
