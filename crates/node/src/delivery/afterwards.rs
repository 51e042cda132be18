//! What is noted of mail once its homeserver has its answer, so that nobody waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use restante_federation_proto::ServerName;
use tokio::sync::watch;

use crate::background::Background;

/// How much is noted at once behind answers; beyond that, answers wait for what is noted of them.
const UNDER_WAY_MAX: usize = 64;

/// Runs what is noted. Clones share it.
#[derive(Clone)]
pub(super) struct Afterwards {
    background: Background,
    under_way: Arc<watch::Sender<Counts>>,
}

/// How much is being noted of each destination's mail.
type Counts = BTreeMap<ServerName, usize>;

/// One of those that are counted, until dropped.
struct UnderWay {
    destination: ServerName,
    counts: Arc<watch::Sender<Counts>>,
}

impl Afterwards {
    pub(super) fn new(background: Background) -> Self {
        Self { background, under_way: Arc::new(watch::Sender::default()) }
    }

    /// Runs `noting`, and returns at once unless too much is under way. The caller bounds its time.
    pub(super) async fn note(
        &self,
        destination: &ServerName,
        noting: impl Future<Output = ()> + Send + 'static,
    ) {
        let is_much = self.under_way.borrow().values().sum::<usize>() >= UNDER_WAY_MAX;
        let counted = UnderWay::of(destination, &self.under_way);
        let noting = async move {
            let _counted = counted;
            noting.await;
        };
        if is_much {
            noting.await;
        } else {
            self.background.spawn(noting);
        }
    }

    /// Waits until all is noted of mail that `destination` took.
    pub(super) async fn noted(&self, destination: &ServerName) {
        let mut under_way = self.under_way.subscribe();
        // It ends in error when nobody is left who notes anything.
        let _ = under_way.wait_for(|counts| !counts.contains_key(destination)).await;
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
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use futures_util::poll;
    use tokio::sync::oneshot;

    use super::*;
    use crate::test_site::name;

    fn waiting() -> (oneshot::Sender<()>, impl Future<Output = ()> + Send + 'static) {
        let (go_on, wait) = oneshot::channel();
        (go_on, async move { drop(wait.await) })
    }

    #[tokio::test]
    async fn nobody_waits_for_what_is_noted_but_who_asks_for_it() {
        let afterwards = Afterwards::new(Background::default());
        let (b, c) = (name("b.test"), name("c.test"));
        let (go_on, noting) = waiting();
        assert!(afterwards.note(&b, noting).now_or_never().is_some());
        assert!(afterwards.noted(&c).now_or_never().is_some(), "another's mail");
        let mut noted = Box::pin(afterwards.noted(&b));
        assert!(poll!(noted.as_mut()).is_pending());
        go_on.send(()).unwrap();
        noted.await;
        assert!(afterwards.under_way.borrow().is_empty());
    }

    #[tokio::test]
    async fn answers_wait_when_too_much_is_under_way_and_stopping_ends_it() {
        let background = Background::default();
        let afterwards = Afterwards::new(background.clone());
        let b = name("b.test");
        let mut held_up = Vec::new();
        for _ in 0..UNDER_WAY_MAX {
            let (go_on, noting) = waiting();
            assert!(afterwards.note(&b, noting).now_or_never().is_some());
            held_up.push(go_on);
        }
        let (go_on, noting) = waiting();
        let mut one_more = Box::pin(afterwards.note(&b, noting));
        assert!(poll!(one_more.as_mut()).is_pending());
        go_on.send(()).unwrap();
        one_more.await;
        background.stop(Duration::ZERO).await;
        assert!(afterwards.noted(&b).now_or_never().is_some());
    }
}
