//! Events that were pulled into a gap and could not be stored: they are left alone for a while, even when they come
//! with all that they follow. Only an event that is pushed heals this.

use std::collections::BTreeSet;

#[derive(Default)]
pub(crate) struct FailedPulls {
    marked: BTreeSet<String>,
}

impl FailedPulls {
    pub(crate) fn mark(&mut self, id: &str) {
        self.marked.insert(id.to_owned());
    }

    pub(crate) fn is_marked(&self, id: &str) -> bool {
        self.marked.contains(id)
    }
}
