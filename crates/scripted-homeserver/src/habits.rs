//! What a homeserver does in its own way, with the numbers of Synapse 1.163 unless said.

use std::time::Duration;

/// The habits of one homeserver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Habits {
    /// Events of one room that wait to be looked at; further ones are dropped.
    pub staged_max: usize,
    /// How long it looks at one event.
    pub staging_time: Duration,
    /// Events that it asks for to close a gap.
    pub missing_events_max: usize,
    /// Events of one transaction that it sends.
    pub pdus_max: usize,
    /// EDUs of one transaction that it sends.
    pub edus_max: usize,
    /// After a failure the same transaction is sent again so many times within one call.
    pub repeats_max: u32,
    /// Before the first of these repeats; each next one waits four times as long.
    pub repeat_first: Duration,
    /// How long it leaves a server alone after a failure; each next failure doubles it.
    pub back_off_first: Duration,
    /// The longest that it leaves a server alone. Synapse's is a week.
    pub back_off_max: Duration,
    /// After so many failures in a row the queue is dropped, and only the newest event of each room is sent.
    pub catch_up_after: u32,
    /// How long its own key document is valid.
    pub keys_valid: Duration,
}

impl Default for Habits {
    /// Synapse, with its waits of minutes and days shortened so that a test sees several of them.
    fn default() -> Self {
        Self {
            staged_max: 100,
            staging_time: Duration::from_millis(5),
            missing_events_max: 10,
            pdus_max: 50,
            edus_max: 100,
            repeats_max: 2,
            repeat_first: Duration::from_secs(4),
            back_off_first: Duration::from_secs(60),
            back_off_max: Duration::from_secs(600),
            catch_up_after: 3,
            keys_valid: Duration::from_secs(24 * 3600),
        }
    }
}
