//! One transaction of a destination at a time, in the order in which they came: numbers must not overtake each other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use restante_federation_proto::ServerName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Hands out turns. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turns {
    queues: Arc<Mutex<HashMap<ServerName, Arc<Semaphore>>>>,
}

/// The right to send to one destination, until dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Turns,
    destination: ServerName,
    permit: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// Waits for the turn to send to `destination`; first come, first served.
    pub(crate) async fn take(&self, destination: &ServerName) -> Turn {
        let queue = {
            let mut queues = self.lock();
            // Whoever stopped waiting may have left a queue without anybody in it.
            queues.retain(|_, queue| Arc::strong_count(queue) > 1);
            queues.entry(destination.clone()).or_insert_with(|| Arc::new(Semaphore::new(1))).clone()
        };
        let permit = queue.acquire_owned().await.ok();
        Turn { turns: self.clone(), destination: destination.clone(), permit }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ServerName, Arc<Semaphore>>> {
        self.queues.lock().expect("nothing panics while it holds the queues")
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut queues = self.turns.lock();
        drop(self.permit.take());
        if queues.get(&self.destination).is_some_and(|queue| Arc::strong_count(queue) == 1) {
            queues.remove(&self.destination);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_of_one_destination_follow_each_other_and_leave_nothing_behind() {
        let turns = Turns::default();
        let (b, c) = ("b.test".parse().unwrap(), "c.test".parse().unwrap());
        let first = turns.take(&b).await;
        let mut second = Box::pin(turns.take(&b));
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        drop(turns.take(&c).await);
        drop(first);
        drop(second.await);
        assert!(turns.lock().is_empty());
    }
}
