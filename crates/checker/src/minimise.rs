//! Cuts a history down to the calls that show one violation.

use crate::allowance::Allowance;
use crate::check::check;
use crate::history::Call;
use crate::violation::Violation;

/// The smallest part of `history` found that shows the very same `violation`: without any one of its calls it shows another or none.
pub fn minimise(history: &[Call], allowance: &Allowance, violation: &Violation) -> Vec<Call> {
    let shows_it = |part: &[Call]| check(part, allowance).contains(violation);
    let mut part = history.to_vec();
    // Most of a history is about other mailboxes, and all of that goes at once.
    let about_it = |call: &Call| call.mailbox() == Some(&violation.mailbox);
    let mailbox: Vec<_> = history.iter().filter(|call| about_it(call)).cloned().collect();
    if shows_it(&mailbox) {
        part = mailbox;
    }
    let mut length = part.len().div_ceil(2);
    loop {
        let before = part.len();
        part = without_chunks(part, length, &shows_it);
        if length > 1 {
            length = length.div_ceil(2);
        } else if part.len() == before {
            return part;
        }
    }
}

/// `part` without those of its runs of `length` calls that it can do without, tried from the end: what came late matters least.
fn without_chunks(
    mut part: Vec<Call>,
    length: usize,
    shows_it: &impl Fn(&[Call]) -> bool,
) -> Vec<Call> {
    let mut end = part.len();
    while end > 0 {
        let start = end.saturating_sub(length);
        let shorter: Vec<_> = part[..start].iter().chain(&part[end..]).cloned().collect();
        if shows_it(&shorter) {
            part = shorter;
        }
        end = start;
    }
    part
}
