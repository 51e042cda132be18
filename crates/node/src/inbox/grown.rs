//! Decides about transactions that came under one id with different bodies. A homeserver takes each id once; what
//! came in a second body would be lost.
//!
//! Pure.

use std::collections::HashMap;

use bytes::Bytes;
use restante_federation_proto::canonicalise;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::store::inbox::Twins;

/// How to deliver what may have come before, with this body or with another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// As it is.
    Whole,
    /// Not at all: another body that waits holds all of it.
    WithAnother,
    /// Its events on their own: the homeserver took another body.
    Apart,
    /// Not again: it went straight to the homeserver, and its events are to be confirmed.
    Already,
}

/// Bytes of an event's or EDU's fingerprint: no two that differ have the same, by chance or by anybody's work.
const FINGERPRINT_BYTES: usize = 32;

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, default)]
    pdus: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default)]
    edus: Option<Vec<&'a RawValue>>,
}

/// Decides about `content`.
pub(crate) fn delivered(content: &[u8], twins: &Twins) -> Delivered {
    if twins.is_copy {
        return Delivered::Already;
    }
    if twins.is_one_delivered {
        return Delivered::Apart;
    }
    if twins.waiting.iter().any(|twin| holds_more(twin, content)) {
        return Delivered::WithAnother;
    }
    Delivered::Whole
}

/// Whether `larger` holds everything of `smaller`, and something else. So no two bodies wait for each other; and what
/// can't be read waits for none.
fn holds_more(larger: &Bytes, smaller: &[u8]) -> bool {
    let body = |json| serde_json::from_slice::<Body<'_>>(json).ok();
    let (Some(larger), Some(smaller)) = (body(larger), body(smaller)) else { return false };
    let (larger_pdus, larger_edus) = (fingerprints(larger.pdus), fingerprints(larger.edus));
    let (pdus, edus) = (fingerprints(smaller.pdus), fingerprints(smaller.edus));
    let is_in =
        |some: &[Fingerprint], all: &[Fingerprint]| some.iter().all(|one| all.contains(one));
    is_in(&pdus, &larger_pdus)
        && is_in(&edus, &larger_edus)
        && larger_pdus.len() + larger_edus.len() > pdus.len() + edus.len()
}

type Fingerprint = [u8; FINGERPRINT_BYTES];

/// Not the values themselves: a number that JSON allows and no `Value` can hold must not make two events the same.
fn fingerprints(list: Option<Vec<&RawValue>>) -> Vec<Fingerprint> {
    let items = list.unwrap_or_default().into_iter();
    items.map(|item| fingerprint(item.get().as_bytes())).collect()
}

#[derive(Default, Deserialize)]
struct Edus<'a> {
    #[serde(borrow, default)]
    edus: Option<Vec<&'a RawValue>>,
}

/// What tells each EDU of a transaction from others, one after the other.
pub(crate) fn edu_fingerprints(content: &[u8]) -> Vec<u8> {
    let edus = serde_json::from_slice::<Edus<'_>>(content).unwrap_or_default().edus;
    let edus = edus.unwrap_or_default().into_iter().map(|edu| edu.get().as_bytes());
    edus.flat_map(fingerprint).collect()
}

fn fingerprint(item: &[u8]) -> Fingerprint {
    // What has no canonical form is the same only if its bytes are.
    canonicalise(item).map_or_else(|_| Sha256::digest(item), Sha256::digest).into()
}

/// How many EDUs of `content` are not among those of `fingerprints`, each of which stands for one.
pub(crate) fn edus_beyond(content: &[u8], fingerprints: &[u8]) -> usize {
    let mut there: HashMap<&[u8], usize> = HashMap::new();
    for fingerprint in fingerprints.chunks_exact(FINGERPRINT_BYTES) {
        *there.entry(fingerprint).or_default() += 1;
    }
    let mut beyond = 0;
    for fingerprint in edu_fingerprints(content).chunks_exact(FINGERPRINT_BYTES) {
        match there.get_mut(fingerprint) {
            Some(left) if *left > 0 => *left -= 1,
            _ => beyond += 1,
        }
    }
    beyond
}

#[cfg(test)]
mod tests {
    use super::*;

    fn twins(waiting: &[&'static str], is_one_delivered: bool) -> Twins {
        let waiting = waiting.iter().map(|json| Bytes::from_static(json.as_bytes())).collect();
        Twins { waiting, is_one_delivered, ..Twins::default() }
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
    fn what_went_straight_to_the_homeserver_is_not_delivered_again() {
        let twins = Twins { is_copy: true, ..twins(&[], true) };
        assert_eq!(delivered(SMALL, &twins), Delivered::Already);
    }

    #[test]
    fn each_edu_counts_once_however_it_is_written() {
        let taken = edu_fingerprints(br#"{"edus":[{"a":1,"b":2},{"c":3}]}"#);
        let beyond = |content: &str| edus_beyond(content.as_bytes(), &taken);
        assert_eq!(beyond(r#"{"edus":[{"c":3},{"b":2, "a":1}]}"#), 0);
        assert_eq!(beyond(r#"{"edus":[{"c":3},{"c":3},{"d":4}]}"#), 2);
        assert_eq!(beyond(r#"{"pdus":[]}"#), 0);
        assert_eq!(edus_beyond(br#"{"edus":[{"c":3}]}"#, &[]), 1);
    }

    #[test]
    fn numbers_that_only_their_lexemes_tell_apart_make_different_events() {
        for (one, other) in [("123456789012345678901", "123456789012345678902"), ("1e999", "2e999")]
        {
            let small = format!(r#"{{"pdus":[{{"n":{one}}}]}}"#);
            let grown = format!(r#"{{"pdus":[{{"n":{other}}},{{"b":1}}]}}"#);
            let twins = Twins { waiting: vec![grown.clone().into()], ..Twins::default() };
            assert_eq!(delivered(small.as_bytes(), &twins), Delivered::Whole, "{one}");
            let twins = Twins { waiting: vec![grown.replace(other, one).into()], ..twins };
            assert_eq!(delivered(small.as_bytes(), &twins), Delivered::WithAnother, "{one}");
        }
    }

    #[test]
    fn bodies_that_hold_the_same_in_another_order_do_not_wait_for_each_other() {
        let one = r#"{"pdus":[{"a":1},{"a":2}],"edus":[{"e":1}]}"#;
        let other = r#"{"edus":[{"e":1}],"pdus":[{"a":2},{"a":1}]}"#;
        assert_eq!(delivered(one.as_bytes(), &twins(&[other], false)), Delivered::Whole);
        assert_eq!(delivered(other.as_bytes(), &twins(&[one], false)), Delivered::Whole);
    }

    #[test]
    fn a_body_that_cannot_be_read_waits_for_none() {
        assert_eq!(
            delivered(br#"{"pdus":7}"#, &twins(&[r#"{"pdus":[1]}"#], false)),
            Delivered::Whole
        );
    }

    #[test]
    fn bodies_that_hold_different_things_are_both_delivered() {
        let other = r#"{"pdus":[{"a":2},{"a":3}],"edus":[{"e":1}]}"#;
        assert_eq!(delivered(SMALL, &twins(&[other, "[]"], false)), Delivered::Whole);
        assert_eq!(delivered(SMALL, &twins(&[other], true)), Delivered::Apart);
    }
}
