//! When a node is ready: what it is given must become durable.

use std::sync::Arc;

use async_trait::async_trait;
use restante_operators::{Condition, Readiness, Unmet};
use restante_sqlite::Database;

/// A node whose homeserver is away is ready all the same: it takes mail for it.
pub(crate) fn readiness(database: Database) -> Arc<Readiness> {
    Arc::new(Readiness::of(vec![Arc::new(Storage(database))]))
}

struct Storage(Database);

#[async_trait]
impl Condition for Storage {
    fn name(&self) -> &'static str {
        "storage"
    }

    async fn check(&self) -> Result<(), Unmet> {
        // SQLite commits a savepoint without changes without touching the disk, so something is written.
        let written = self.0.write(|connection| {
            let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            connection.pragma_update(None, "user_version", version)
        });
        written.await.map_err(|error| Unmet {
            problem: format!("the node's database takes no writes: {error}"),
            what_to_do: "free space on the disk of the data folder, or mend it; then restart"
                .to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store;

    #[tokio::test]
    async fn a_node_that_can_write_is_ready_though_nothing_else_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let report = readiness(store::open(folder.path()).unwrap()).look().await;
        assert!(report.ready, "{report:?}");
    }
}
