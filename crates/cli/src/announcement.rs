//! What a program says when it has started.

use std::io::Write as _;

/// Says it on standard output. Whoever started the program may have closed that; it serves all the same.
pub(crate) fn announce(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
