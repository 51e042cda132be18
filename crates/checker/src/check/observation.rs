//! What one answered collect showed of a mailbox.

use crate::history::{Answer, Call, Op, Seen, Tick};

/// A look into a mailbox, somewhere between `start` and `end`.
pub(super) struct Observation<'a> {
    pub(super) call: usize,
    pub(super) start: Tick,
    pub(super) end: Tick,
    /// It shows only what is above this id.
    pub(super) after: u64,
    pub(super) limit: u64,
    max_bytes: u64,
    pub(super) seen: &'a [Seen],
    pub(super) queued: Option<(u64, u64)>,
    /// Whether it shows everything above its cursor: neither limit can have ended it.
    pub(super) is_complete: bool,
}

impl<'a> Observation<'a> {
    pub(super) fn of(call: &'a Call) -> Option<Self> {
        let Answer::Collected(collected) = &call.answer else { return None };
        let (after, limit, max_bytes) = match &call.op {
            Op::Collect(asked) => (asked.after, asked.limit, asked.max_bytes),
            Op::RelayTxn(_) => (0, 1, u64::MAX),
            Op::Deposit(_) | Op::Malformed(_) => return None,
        };
        Some(Self {
            call: call.number,
            start: call.start,
            end: call.end,
            after,
            limit,
            max_bytes,
            seen: &collected.envelopes,
            queued: collected.queued,
            is_complete: false,
        })
    }

    /// Whether one more envelope, of at most `largest` bytes, would have found room.
    pub(super) fn judge_completeness(&mut self, largest: u64) {
        let bytes: u64 = self.seen.iter().map(|seen| seen.bytes).sum();
        let room_for_bytes = bytes.saturating_add(largest) <= self.max_bytes;
        let room_for_one = (self.seen.len() as u64) < self.limit;
        self.is_complete = self.seen.is_empty() || (room_for_one && room_for_bytes);
    }

    /// The highest id that it shows; its cursor when it shows none.
    pub(super) fn last_id(&self) -> u64 {
        self.seen.last().map_or(self.after, |seen| seen.id)
    }
}
