//! Decides about transactions that came under one id with different bodies. A homeserver takes each id once; what
//! came in a second body would be lost.
//!
//! Pure.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use crate::store::inbox::Twins;

/// How to deliver one of several bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// As it is.
    Whole,
    /// Not at all: another body that waits holds all of it.
    WithAnother,
    /// Its events on their own: the homeserver took another body.
    Apart,
}

#[derive(Default, Deserialize)]
struct Body {
    #[serde(default)]
    pdus: Option<Vec<Value>>,
    #[serde(default)]
    edus: Option<Vec<Value>>,
}

/// Decides about `content`.
pub(crate) fn delivered(content: &[u8], twins: &Twins) -> Delivered {
    if twins.is_one_delivered {
        return Delivered::Apart;
    }
    if twins.waiting.iter().any(|twin| holds_more(twin, content)) {
        return Delivered::WithAnother;
    }
    Delivered::Whole
}

/// Whether `larger` holds everything of `smaller`, and something else. So no two bodies wait for each other.
fn holds_more(larger: &Bytes, smaller: &[u8]) -> bool {
    let body = |json: &[u8]| serde_json::from_slice::<Body>(json).unwrap_or_default();
    let (larger, smaller) = (body(larger), body(smaller));
    let (larger_pdus, larger_edus) = (listed(larger.pdus), listed(larger.edus));
    let (pdus, edus) = (listed(smaller.pdus), listed(smaller.edus));
    let is_in = |list: &[Value], all: &[Value]| list.iter().all(|item| all.contains(item));
    is_in(&pdus, &larger_pdus)
        && is_in(&edus, &larger_edus)
        && larger_pdus.len() + larger_edus.len() > pdus.len() + edus.len()
}

fn listed(list: Option<Vec<Value>>) -> Vec<Value> {
    list.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn twins(waiting: &[&'static str], is_one_delivered: bool) -> Twins {
        let waiting = waiting.iter().map(|json| Bytes::from_static(json.as_bytes())).collect();
        Twins { waiting, is_one_delivered }
    }

    const SMALL: &[u8] = br#"{"pdus":[{"a":1}],"edus":[{"e":1}]}"#;

    #[test]
    fn what_came_once_is_delivered_as_it_is() {
        assert_eq!(delivered(SMALL, &Twins::default()), Delivered::Whole);
    }

    #[test]
    fn a_grown_body_that_waits_is_delivered_for_both() {
        let grown = r#"{"edus":[{"e":1}],"pdus":[{"a":1},{"a":2}]}"#;
        assert_eq!(delivered(SMALL, &twins(&[grown], false)), Delivered::WithAnother);
        let small = std::str::from_utf8(SMALL).unwrap();
        assert_eq!(delivered(grown.as_bytes(), &twins(&[small], false)), Delivered::Whole);
    }

    #[test]
    fn bodies_that_hold_different_things_are_both_delivered() {
        let other = r#"{"pdus":[{"a":2},{"a":3}],"edus":[{"e":1}]}"#;
        assert_eq!(delivered(SMALL, &twins(&[other, "[]"], false)), Delivered::Whole);
        assert_eq!(delivered(SMALL, &twins(&[other], true)), Delivered::Apart);
    }
}
