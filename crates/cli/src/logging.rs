//! Logs: to standard error, filtered, one line per event, for people or as JSON.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::args::{LogFormat, LogOptions};

/// Starts logging; called once, by the commands that run for long.
pub(crate) fn start(options: &LogOptions) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&options.filter)
        .with_context(|| format!("--log {:?} is not a log filter", options.filter))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match options.format {
        LogFormat::Pretty => lines.init(),
        // The event's own fields stand beside its level and target, so that their names are the same at every depth.
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).init(),
    }
    Ok(())
}
