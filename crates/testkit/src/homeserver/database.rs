//! Looks into a stopped Synapse's database, and empties its memory of keys.

use rusqlite::Connection;

use super::Homeserver;

impl Homeserver {
    /// Empties its tables of other servers' keys.
    ///
    /// # Panics
    ///
    /// When it runs.
    pub fn forget_keys(&self) {
        assert!(!self.process.is_started(), "stop the homeserver before its tables are emptied");
        let emptied = self
            .database()
            .execute_batch("DELETE FROM server_signature_keys; DELETE FROM server_keys_json;");
        emptied.expect("the tables are Synapse's");
    }

    /// How many events it has rejected.
    pub fn rejected_events(&self) -> u64 {
        let count = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
        let counted = self.database().query_row("SELECT count(*) FROM rejections", [], count);
        counted.expect("the table is Synapse's").unsigned_abs()
    }

    fn database(&self) -> Connection {
        Connection::open(self.database_file()).expect("the homeserver has made its database")
    }
}
