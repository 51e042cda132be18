//! A machine's wall clock: virtual time, and how wrong it is.

use std::sync::atomic::{AtomicI64, Ordering};

use restante_federation_proto::{Clock, Timestamp};
use tokio::time::Instant;

/// When every simulation begins.
pub(crate) const BEGINNING: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// The clock of one machine.
#[derive(Debug)]
pub(crate) struct MachineClock {
    begun: Instant,
    error_ms: AtomicI64,
}

impl MachineClock {
    /// A clock that is wrong by `error_ms`; it must be made when virtual time begins.
    pub(crate) fn new(error_ms: i64) -> Self {
        Self { begun: Instant::now(), error_ms: AtomicI64::new(error_ms) }
    }

    /// The clock is set.
    pub(crate) fn set_error(&self, error_ms: i64) {
        self.error_ms.store(error_ms, Ordering::SeqCst);
    }
}

impl Clock for MachineClock {
    fn now(&self) -> Timestamp {
        let right = BEGINNING.after(self.begun.elapsed()).as_millis();
        Timestamp::from_millis(right.saturating_add_signed(self.error_ms.load(Ordering::SeqCst)))
    }
}
