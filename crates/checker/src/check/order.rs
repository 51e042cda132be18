//! The order of deposits that don't overlap is the order of their ids.

use super::windows::Letter;
use crate::violation::Fault;

pub(super) fn check(letters: &[Letter<'_>], faults: &mut Vec<Fault>) {
    for letter in letters {
        let Some(id) = letter.id.filter(|id| *id <= letter.id_above) else { continue };
        // What bounds it is one that was surely stored before it began to be left.
        let earlier = letters.iter().find(|other| other.id == Some(letter.id_above));
        let Some(earlier) = earlier else { continue };
        faults.push(Fault::OutOfOrder {
            first: earlier.key.clone(),
            first_id: letter.id_above,
            second: letter.key.clone(),
            second_id: id,
        });
    }
}
