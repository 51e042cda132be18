//! Notices panics, also those that a task or a database operation catches: no promise allows any.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    /// Of the run on this thread; each run has a thread to itself while it lasts.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

static HOOK: Once = Once::new();

/// Begins to note this thread's panics.
pub(crate) fn begin() {
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.with_borrow_mut(|panics| panics.push(panic.to_string()));
            before(panic);
        }));
    });
    PANICS.take();
}

/// Those since [`begin`].
pub(crate) fn noted() -> Vec<String> {
    PANICS.take()
}
