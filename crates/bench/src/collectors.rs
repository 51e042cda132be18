//! Owners at work: each collects what comes, and acknowledges it.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::owner::{self, Owner};
use crate::wire::Wire;

/// Owners of mailboxes at one relay, each with one connection. Dropped, they end.
pub(crate) struct Collectors {
    working: JoinSet<anyhow::Result<(usize, Collector)>>,
    stop: CancellationToken,
}

/// One owner, and what it has asked for so far.
pub(crate) struct Collector {
    pub(crate) owner: Arc<Owner>,
    after: u64,
}

impl Collector {
    pub(crate) fn of(owner: Owner) -> Self {
        Self { owner: Arc::new(owner), after: 0 }
    }

    /// Goes on until `stop`, and then until its mailbox is empty; how much came.
    async fn go_on(
        mut self,
        relay: SocketAddr,
        wait_ms: u64,
        stop: CancellationToken,
    ) -> anyhow::Result<(usize, Self)> {
        let mut wire = Wire::open(relay).await?;
        let (mut collected, mut acknowledge) = (0, Vec::new());
        loop {
            let is_last = stop.is_cancelled();
            let wait_ms = if is_last { 0 } else { wait_ms };
            let request = self.owner.next(self.after, std::mem::take(&mut acknowledge), wait_ms);
            let batch = owner::read(self.after, wire.ask(&request).await?)?;
            collected += batch.mail.len();
            self.after = batch.mail.last().map_or(self.after, |last| last.id);
            acknowledge = batch.mail;
            if is_last && acknowledge.is_empty() {
                return Ok((collected, self));
            }
        }
    }
}

impl Collectors {
    /// Lets them begin; each collect waits for `wait_ms`, after which it hears of the end.
    pub(crate) fn start(
        collectors: impl IntoIterator<Item = Collector>,
        relay: SocketAddr,
        wait_ms: u64,
    ) -> Self {
        let (mut working, stop) = (JoinSet::new(), CancellationToken::new());
        for collector in collectors {
            working.spawn(collector.go_on(relay, wait_ms, stop.clone()));
        }
        Self { working, stop }
    }

    /// Lets them empty their mailboxes and ends them; how much they collected since they began.
    pub(crate) async fn stop(mut self) -> anyhow::Result<(usize, Vec<Collector>)> {
        self.stop.cancel();
        let (mut collected, mut collectors) = (0, Vec::new());
        while let Some(done) = self.working.join_next().await {
            let (count, collector) = done.context("an owner's task panicked")??;
            collected += count;
            collectors.push(collector);
        }
        Ok((collected, collectors))
    }
}
