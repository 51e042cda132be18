//! Tests against recorded vectors of other implementations, and against other implementations' rules.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

mod boundaries;
mod canonical_json;
mod event_ids;
mod event_signatures;
mod generated_json;
mod key_documents;
mod x_matrix;
