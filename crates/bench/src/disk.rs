//! What the disk can do: append 4 KiB and have it durable, one at a time and in batches.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::numbers::Latencies;

/// One append.
const APPEND_BYTES: usize = 4096;

/// Appends that share an `fdatasync`: as many as connections leave mail at once.
pub(crate) const BATCH: usize = 64;

/// What was reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Disk {
    /// The median of an append and its `fdatasync`, milliseconds.
    pub(crate) sync_ms: f64,
    /// Appends a second, each with its own.
    pub(crate) single: f64,
    /// Appends a second in batches.
    pub(crate) batched: f64,
}

impl Disk {
    /// Measures in `folder` for `time`.
    pub(crate) fn measure(folder: &Path, time: Duration) -> anyhow::Result<Self> {
        let file = tempfile::tempfile_in(folder).context("cannot make a file here")?;
        let (syncs, took) = append(&file, 1, time / 2)?;
        let (sync_ms, single) = (syncs.milliseconds(0.5), rate(&syncs, 1, took));
        let (syncs, took) = append(&file, BATCH, time / 2)?;
        Ok(Self { sync_ms, single, batched: rate(&syncs, BATCH, took) })
    }
}

fn rate(syncs: &Latencies, batch: usize, took: Duration) -> f64 {
    (syncs.count() * batch) as f64 / took.as_secs_f64()
}

fn append(mut file: &File, batch: usize, time: Duration) -> anyhow::Result<(Latencies, Duration)> {
    // What the disk might compress would say nothing.
    let block: Vec<u8> = (0..APPEND_BYTES).map(|_| rand::random()).collect();
    let (mut syncs, began) = (Latencies::default(), Instant::now());
    while began.elapsed() < time || syncs.count() == 0 {
        let from = Instant::now();
        for _ in 0..batch {
            file.write_all(&block)?;
        }
        file.sync_data()?;
        syncs.add(from.elapsed());
    }
    Ok((syncs, began.elapsed()))
}
