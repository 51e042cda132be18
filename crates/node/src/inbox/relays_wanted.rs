//! The word that all relays should be asked at once, long poll or not.
//!
//! Those who wait for it are woken in the order in which they began to wait, so that the same events take the same course again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Says so.
#[derive(Default)]
pub(crate) struct RelaysWanted(Arc<Said>);

#[derive(Default)]
struct Said {
    times: AtomicU64,
    again: Notify,
}

/// Hears it, each time once.
pub(crate) struct RelaysWantedListener {
    said: Arc<Said>,
    heard: u64,
}

impl RelaysWanted {
    /// Says it to everybody.
    pub(crate) fn say(&self) {
        self.0.times.fetch_add(1, Ordering::SeqCst);
        self.0.again.notify_waiters();
    }

    /// A listener that has heard what was said so far.
    pub(crate) fn listen(&self) -> RelaysWantedListener {
        RelaysWantedListener { heard: self.0.times.load(Ordering::SeqCst), said: self.0.clone() }
    }
}

impl RelaysWantedListener {
    /// Whether it was said since it was taken notice of last; takes notice.
    pub(crate) fn was_said(&mut self) -> bool {
        let times = self.said.times.load(Ordering::SeqCst);
        std::mem::replace(&mut self.heard, times) != times
    }

    /// Waits until it is said, and takes no notice.
    pub(crate) async fn said(&self) {
        loop {
            // Interest is registered before the look: what is said in between still wakes us.
            let mut again = std::pin::pin!(self.said.again.notified());
            again.as_mut().enable();
            if self.said.times.load(Ordering::SeqCst) != self.heard {
                return;
            }
            again.await;
        }
    }
}
