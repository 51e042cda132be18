//! What is noted of mail once its homeserver has its answer: nobody waits for it, and what is noted within a moment shares
//! a commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use restante_federation_proto::ServerName;
use tokio::sync::{oneshot, watch};

use crate::background::Background;

/// How long a note may wait for others, once it is prepared. A crash loses it until it is written.
const GATHERED: Duration = Duration::from_millis(50);

/// How much is noted at once behind answers; beyond that, answers wait for what is noted of them.
const UNDER_WAY_MAX: usize = 64;

/// Runs what is noted. Clones share it.
#[derive(Clone)]
pub(super) struct Afterwards {
    background: Background,
    under_way: Arc<watch::Sender<Counts>>,
    /// How many wait until all is noted.
    hurried: Arc<watch::Sender<usize>>,
}

/// How much is being noted of each destination's mail.
type Counts = BTreeMap<ServerName, usize>;

/// One of those that are counted, until dropped.
struct UnderWay {
    destination: ServerName,
    counts: Arc<watch::Sender<Counts>>,
}

/// Somebody waits until all is noted, until dropped.
struct Hurry(Arc<watch::Sender<usize>>);

impl Afterwards {
    pub(super) fn new(background: Background) -> Self {
        let (under_way, hurried) = (Arc::default(), Arc::default());
        Self { background, under_way, hurried }
    }

    /// Has `prepared` be noted by `written`, and returns at once unless too much is under way. The caller bounds its time.
    pub(super) async fn note<T, W>(
        &self,
        destination: &ServerName,
        prepared: impl Future<Output = T> + Send + 'static,
        written: impl FnOnce(T) -> W + Send + 'static,
    ) where
        T: Send,
        W: Future<Output = ()> + Send,
    {
        let is_much = self.under_way.borrow().values().sum::<usize>() >= UNDER_WAY_MAX;
        let (counted, mut hurried) =
            (UnderWay::of(destination, &self.under_way), self.hurried.subscribe());
        let noting = async move {
            let _counted = counted;
            let prepared = prepared.await;
            tokio::select! {
                _ = hurried.wait_for(|waiting| *waiting > 0) => {}
                () = tokio::time::sleep(GATHERED) => {}
            }
            written(prepared).await;
        };
        // It goes on if whoever waits for it hangs up.
        let (done, ended) = oneshot::channel();
        self.background.spawn(async move {
            noting.await;
            // Mostly nobody waits.
            let _ = done.send(());
        });
        if is_much {
            let _hurry = Hurry::of(&self.hurried);
            // Without an answer the node ends.
            let _ = ended.await;
        }
    }

    /// Whether something is being noted of mail that `destination` took.
    pub(super) fn is_noting(&self, destination: &ServerName) -> bool {
        self.under_way.borrow().contains_key(destination)
    }

    /// Waits until all is noted of mail that `destination` took, which is done without waiting for more.
    pub(super) async fn noted(&self, destination: &ServerName) {
        let mut under_way = self.under_way.subscribe();
        let _hurry = Hurry::of(&self.hurried);
        // It ends in error when nobody is left who notes anything.
        let _ = under_way.wait_for(|counts| !counts.contains_key(destination)).await;
    }
}

impl Hurry {
    fn of(hurried: &Arc<watch::Sender<usize>>) -> Self {
        hurried.send_modify(|waiting| *waiting += 1);
        Self(hurried.clone())
    }
}

impl Drop for Hurry {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

impl UnderWay {
    fn of(destination: &ServerName, counts: &Arc<watch::Sender<Counts>>) -> Self {
        counts.send_modify(|counts| *counts.entry(destination.clone()).or_default() += 1);
        Self { destination: destination.clone(), counts: counts.clone() }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.counts.send_modify(|counts| {
            let Some(count) = counts.get_mut(&self.destination) else { return };
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.destination);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt as _;
    use futures_util::poll;
    use tokio::time::Instant;

    use super::*;
    use crate::test_site::name;

    fn waiting() -> (oneshot::Sender<()>, impl Future<Output = ()> + Send + 'static) {
        let (go_on, wait) = oneshot::channel();
        (go_on, async move { drop(wait.await) })
    }

    async fn nothing(_: ()) {}

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_what_is_noted_but_who_asks_for_it() {
        let afterwards = Afterwards::new(Background::default());
        let (b, c) = (name("b.test"), name("c.test"));
        let (go_on, noting) = waiting();
        assert!(afterwards.note(&b, noting, nothing).now_or_never().is_some());
        assert!(!afterwards.is_noting(&c) && afterwards.is_noting(&b));
        assert!(afterwards.noted(&c).now_or_never().is_some(), "another's mail");
        let begun = Instant::now();
        let mut noted = Box::pin(afterwards.noted(&b));
        assert!(poll!(noted.as_mut()).is_pending());
        go_on.send(()).unwrap();
        noted.await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "it is noted at once");
        assert!(afterwards.under_way.borrow().is_empty());
        assert_eq!(*afterwards.hurried.borrow(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_noted_within_a_moment_is_written_together() {
        let afterwards = Afterwards::new(Background::default());
        let written = Arc::new(AtomicUsize::new(0));
        let begun = Instant::now();
        for _ in 0..10 {
            let written = written.clone();
            let write = |()| async move {
                written.fetch_add(1, Ordering::SeqCst);
            };
            afterwards.note(&name("b.test"), std::future::ready(()), write).await;
        }
        assert_eq!((written.load(Ordering::SeqCst), begun.elapsed()), (0, Duration::ZERO));
        tokio::time::sleep(GATHERED + Duration::from_millis(1)).await;
        assert_eq!(written.load(Ordering::SeqCst), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_wait_when_too_much_is_under_way_and_stopping_ends_it() {
        let background = Background::default();
        let afterwards = Afterwards::new(background.clone());
        let b = name("b.test");
        let mut held_up = Vec::new();
        for _ in 0..UNDER_WAY_MAX {
            let (go_on, noting) = waiting();
            assert!(afterwards.note(&b, noting, nothing).now_or_never().is_some());
            held_up.push(go_on);
        }
        let (go_on, noting) = waiting();
        let mut one_more = Box::pin(afterwards.note(&b, noting, nothing));
        assert!(poll!(one_more.as_mut()).is_pending());
        go_on.send(()).unwrap();
        one_more.await;
        background.stop(Duration::ZERO).await;
        assert!(afterwards.noted(&b).now_or_never().is_some());
    }
}
