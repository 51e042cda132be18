//! Logs: to standard error, filtered, one line per event, for people or as JSON.

use std::io::IsTerminal as _;
use std::sync::Arc;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::args::{LogFormat, LogOptions};

/// Until the configuration is read.
const FIRST: &str = "info";

/// What is logged; the configuration may change it, unless the command line says what it is.
#[derive(Clone)]
pub(crate) struct LogFilter(Option<Arc<dyn Fn(EnvFilter) + Send + Sync>>);

/// Starts logging; called once, by the commands that run for long.
pub(crate) fn start(options: &LogOptions) -> anyhow::Result<LogFilter> {
    let given = options.filter.as_deref();
    let filter = parsed(given.unwrap_or(FIRST)).context("--log")?;
    let lines = tracing_subscriber::fmt()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // The subscriber lives as long as the process, so that there is always one to change.
    let change: Arc<dyn Fn(EnvFilter) + Send + Sync> = match options.format {
        LogFormat::Pretty => {
            let lines = lines.with_env_filter(filter).with_filter_reloading();
            let handle = lines.reload_handle();
            lines.init();
            Arc::new(move |filter| drop(handle.reload(filter)))
        }
        // The event's own fields stand beside its level and target, so that their names are the same at every depth.
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_span_list(false);
            let lines = lines.with_env_filter(filter).with_filter_reloading();
            let handle = lines.reload_handle();
            lines.init();
            Arc::new(move |filter| drop(handle.reload(filter)))
        }
    };
    Ok(LogFilter(given.is_none().then_some(change)))
}

impl LogFilter {
    /// From here on `filter` of the configuration holds.
    pub(crate) fn follow(&self, filter: &str) -> anyhow::Result<()> {
        let filter = parsed(filter).context("log.filter")?;
        if let Self(Some(change)) = self {
            change(filter);
        }
        Ok(())
    }
}

/// The filter that `text` is.
pub(crate) fn parsed(text: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(text).with_context(|| format!("{text:?} is not a log filter"))
}
