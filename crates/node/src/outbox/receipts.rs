//! Tells origins what became of their mail: in receipts that hold what ended meanwhile.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use restante_federation_proto::ServerName;
use restante_relay_api::limits::TIME_TO_LIVE;
use restante_sqlite::StoreError;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep, sleep_until};

use super::Outbox;
use crate::backoff::backoff;
use crate::store::receipts_due;

/// How long mail that ended waits for more of its kind.
const BATCH_DELAY: Duration = Duration::from_secs(1);

/// The first wait after an origin could not be told, ...
const RETRY_FIRST: Duration = Duration::from_secs(30);

/// ... and the longest: it keeps a copy, and sends it anew in the worst case.
const RETRY_MAX: Duration = Duration::from_secs(3600);

/// Origins that are told at once.
const AT_ONCE: usize = 8;

/// Receipts for one origin before the others have their turn: whoever answers slowly holds up nobody else.
const TURN_MAX: usize = 4;

/// Origins that could not be told: failures in a row, and until when they are left alone.
type Resting = Mutex<HashMap<ServerName, (u32, Instant)>>;

pub(super) async fn run(outbox: &Outbox) {
    let resting = Resting::default();
    let mut returns = outbox.site.destinations.returns();
    loop {
        if let Err(error) = outbox.tell_all(&resting).await {
            tracing::error!(%error, "what became of others' mail can't be told now");
            sleep(RETRY_FIRST).await;
        }
        let next = lock(&resting).values().map(|(_, until)| *until).min();
        let due = async {
            match next {
                Some(next) => sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = due => {}
            back = returns.recv() => match back {
                Ok(origin) => drop(lock(&resting).remove(&origin)),
                // Nobody knows who is back beside those that are still told.
                Err(RecvError::Lagged(_)) => lock(&resting).clear(),
                Err(RecvError::Closed) => return,
            },
            () = outbox.site.bells.receipts.notified() => sleep(BATCH_DELAY).await,
        }
    }
}

impl Outbox {
    async fn tell_all(&self, resting: &Resting) -> Result<(), StoreError> {
        let origins = receipts_due::origins(&self.site.database).await?;
        lock(resting).retain(|origin, _| origins.contains(origin));
        if origins.is_empty() {
            return Ok(());
        }
        let before = self.site.clock.now().before(TIME_TO_LIVE);
        receipts_due::drop_old(&self.site.database, before).await?;
        let now = Instant::now();
        let rests =
            |origin: &ServerName| lock(resting).get(origin).is_some_and(|(_, until)| *until > now);
        let due: Vec<ServerName> = origins.into_iter().filter(|origin| !rests(origin)).collect();
        let telling = stream::iter(due).for_each_concurrent(AT_ONCE, |origin| async move {
            self.tell(&origin, resting).await
        });
        telling.await;
        Ok(())
    }

    async fn tell(&self, origin: &ServerName, resting: &Resting) {
        match self.tell_batches(origin).await {
            Ok(()) => {
                lock(resting).remove(origin);
            }
            Err(reason) => {
                let mut resting = lock(resting);
                let (failures, until) =
                    resting.entry(origin.clone()).or_insert((0, Instant::now()));
                *failures += 1;
                let random = self.site.dice.fraction();
                *until = Instant::now() + backoff(*failures, RETRY_FIRST, RETRY_MAX, random);
                tracing::debug!(%origin, failures, reason, "an origin could not be told what became of its mail");
            }
        }
    }

    async fn tell_batches(&self, origin: &ServerName) -> Result<(), String> {
        for _ in 0..TURN_MAX {
            let batch = receipts_due::batch(&self.site.database, origin.clone()).await;
            let batch = batch.map_err(|error| error.to_string())?;
            if batch.is_empty() {
                return Ok(());
            }
            self.delivery.carry_receipt(origin, &batch.receipt).await?;
            let (told, missing) = (batch.receipt.deliveries.len(), batch.receipt.missing.len());
            tracing::info!(%origin, told, missing, "told what became of its mail");
            receipts_due::sent(&self.site.database, batch)
                .await
                .map_err(|error| error.to_string())?;
        }
        self.site.bells.receipts.notify_one();
        Ok(())
    }
}

fn lock(resting: &Resting) -> std::sync::MutexGuard<'_, HashMap<ServerName, (u32, Instant)>> {
    resting.lock().unwrap_or_else(PoisonError::into_inner)
}
