//! An answer of many lines, read one by one.

use std::time::Duration;

use anyhow::{Context as _, bail};
use http_body_util::BodyExt as _;

use super::Answer;

/// Bytes of one line: an envelope's body in base64 with what belongs to it.
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The lines of one answer.
#[derive(Debug)]
pub(crate) struct Lines {
    answer: Answer,
    pending: Vec<u8>,
    patience: Duration,
}

impl Lines {
    pub(super) fn of(answer: Answer, patience: Duration) -> Self {
        Self { answer, pending: Vec::new(), patience }
    }

    /// The next line without its end; `None` after the last. An answer that breaks off within a line is an error.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        let mut searched = 0;
        loop {
            if let Some(found) = self.pending[searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.pending.split_off(searched + found + 1);
                let mut line = std::mem::replace(&mut self.pending, rest);
                line.pop();
                return Ok(Some(line));
            }
            searched = self.pending.len();
            if searched > LINE_BYTES_MAX {
                bail!("the answer has a line of more than {LINE_BYTES_MAX} bytes");
            }
            let frame = tokio::time::timeout(self.patience, self.answer.body.frame()).await;
            match frame.context("the answer stopped half-way")? {
                Some(frame) => {
                    let data = frame.context("the answer broke off")?.into_data();
                    self.pending.extend_from_slice(&data.unwrap_or_default());
                }
                None if self.pending.is_empty() => return Ok(None),
                None => bail!("the answer broke off within a line"),
            }
        }
    }
}
