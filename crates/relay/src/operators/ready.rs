//! When a relay is ready: it takes mail, and what it takes becomes durable.

use std::sync::Arc;

use async_trait::async_trait;
use restante_mailbox::StoreError;
use restante_operators::{Condition, Readiness, Unmet};

use crate::disk::Room;
use crate::state::RelayState;

/// All conditions of a relay.
pub(crate) fn readiness(relay: &RelayState) -> Arc<Readiness> {
    let conditions: [Arc<dyn Condition>; 3] = [
        Arc::new(Running(relay.clone())),
        Arc::new(Storage(relay.clone())),
        Arc::new(Disk(relay.clone())),
    ];
    Arc::new(Readiness::of(conditions.into()))
}

struct Running(RelayState);

#[async_trait]
impl Condition for Running {
    fn name(&self) -> &'static str {
        "running"
    }

    async fn check(&self) -> Result<(), Unmet> {
        if self.0.shutdown.is_cancelled() {
            let problem = "the relay is stopping".to_owned();
            return Err(Unmet { problem, what_to_do: "start it again".to_owned() });
        }
        Ok(())
    }
}

struct Storage(RelayState);

#[async_trait]
impl Condition for Storage {
    fn name(&self) -> &'static str {
        "storage"
    }

    async fn check(&self) -> Result<(), Unmet> {
        self.0.store.health().await.map_err(|error| unmet(&error))
    }
}

fn unmet(error: &StoreError) -> Unmet {
    let what_to_do = match error {
        StoreError::DiskFull => {
            "free space on the disk of the data folder, or move the folder to a larger one"
        }
        StoreError::Busy => {
            "wait; if it stays so, the disk is too slow for what comes in: lower [limits], or take a faster one"
        }
        StoreError::Unavailable(_) => {
            "see the log, look at the disk of the data folder, and restart"
        }
    };
    let problem = format!("the database takes no writes: {error}");
    Unmet { problem, what_to_do: what_to_do.to_owned() }
}

struct Disk(RelayState);

#[async_trait]
impl Condition for Disk {
    fn name(&self) -> &'static str {
        "disk"
    }

    async fn check(&self) -> Result<(), Unmet> {
        let (min, disk) = (self.0.rules().storage.free_disk_bytes_min, &self.0.admission.disk);
        if disk.room(min) == Room::Enough {
            return Ok(());
        }
        let free = disk.free_bytes();
        let problem = format!(
            "{free} bytes are free, and below {min} no mail is taken; collecting and acknowledging go on"
        );
        let what_to_do = "free space on the disk of the data folder, or lower storage.free_disk_bytes_min and reload";
        Err(Unmet { problem, what_to_do: what_to_do.to_owned() })
    }
}
