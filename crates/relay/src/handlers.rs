//! One file per endpoint.

pub(crate) mod collect;
pub(crate) mod keys;
pub(crate) mod left;
pub(crate) mod mailbox;
pub(crate) mod relay_record;
pub(crate) mod relay_txn;
pub(crate) mod send_relay;
pub(crate) mod version;
