//! A value that a reload may change while others use it.

use std::sync::{Arc, PoisonError, RwLock};

/// See the module. Clones share the value.
#[derive(Debug, Clone, Default)]
pub struct Adjustable<T>(Arc<RwLock<T>>);

impl<T: Clone> Adjustable<T> {
    /// The value now; whoever decides several things by it asks once.
    pub fn current(&self) -> T {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From here on the value is `value`.
    pub fn set(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

impl<T> From<T> for Adjustable<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(RwLock::new(value)))
    }
}
