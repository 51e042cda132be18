//! Canonical JSON: what it keeps, what it rewrites, what it refuses.

use std::borrow::Cow;

use proptest::prelude::*;
use restante_federation_proto::{CanonicalJsonError, JSON_DEPTH_MAX, canonicalise, members};
use serde_json::Value;

use crate::generated_json::{document, written_freely};

fn canonical(json: &str) -> String {
    let canonical = canonicalise(json.as_bytes()).unwrap_or_else(|error| panic!("{json}: {error}"));
    String::from_utf8(canonical.into_owned()).unwrap()
}

#[track_caller]
fn assert_borrowed(json: &str) {
    let result = canonicalise(json.as_bytes());
    assert!(
        matches!(&result, Ok(Cow::Borrowed(same)) if *same == json.as_bytes()),
        "{json:?} became {:?}",
        result.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    );
}

#[test]
fn canonical_input_is_borrowed() {
    for json in [
        "{}",
        "[]",
        "0",
        "-1",
        "1.0",
        "1e3",
        "-0.5",
        "12345678901234567890",
        "\"\"",
        "null",
        r#"{"":1,"A":[true,false,null],"a":{"b":"c"},"é":"é","｡":1,"😀":2}"#,
        r#"["\"\\\b\t\n\f\r\u0000\u001f/"]"#,
        "[\"\u{7f}\u{2028}\"]",
    ] {
        assert_borrowed(json);
    }
}

#[test]
fn members_are_ordered_by_code_point_at_every_depth() {
    assert_eq!(
        canonical(r#" {"b":[{"d":1,"c":{"y":1,"x":[ {"2":2,"1":1} ]}}], "aa":{}, "a":[ ] } "#),
        r#"{"a":[],"aa":{},"b":[{"c":{"x":[{"1":1,"2":2}],"y":1},"d":1}]}"#
    );
    // UTF-16 order would put the surrogate pair first.
    assert_eq!(canonical(r#"{"\ud83d\ude00":1,"\uff61":2}"#), "{\"｡\":2,\"😀\":1}");
}

#[test]
fn only_what_must_be_escaped_is() {
    assert_eq!(
        canonical(
            r#""\u0041\/\u00e9\u2028\u007f\u001F\u0008\u0009\u000a\u000c\u000d\u0022\u005C""#
        ),
        "\"A/é\u{2028}\u{7f}\\u001f\\b\\t\\n\\f\\r\\\"\\\\\""
    );
}

#[test]
fn what_must_be_escaped_is_found_wherever_it_stands_in_a_long_string() {
    for at in 0..100 {
        let (before, behind) = ("x".repeat(at), "x".repeat(99 - at));
        assert_borrowed(&format!(r#""{before}\n{behind}""#));
        assert_eq!(
            canonical(&format!(r#""{before}\u000a{behind}""#)),
            format!(r#""{before}\n{behind}""#)
        );
        for wrong in ["\n", "\"", "\u{1f}"] {
            assert!(canonicalise(format!("\"{before}{wrong}{behind}\"").as_bytes()).is_err());
        }
    }
}

#[test]
fn number_lexemes_are_kept_but_for_minus_zero() {
    assert_eq!(
        canonical("[-0, 0, -0.0, -0e1, 1.50, 1E+2, 123456789012345678901234567890]"),
        "[0,0,-0.0,-0e1,1.50,1E+2,123456789012345678901234567890]"
    );
    assert_eq!(canonical("-0"), "0");
}

#[test]
fn a_member_named_twice_is_refused_at_any_depth() {
    for json in [
        r#"{"z":1,"z":2}"#,
        r#"{"z":1,"\u007a":2}"#,
        r#"{"z":1,"a":1,"z":2}"#,
        r#"[{"x":{"a":1,"b":2,"z":{},"z":2}}]"#,
    ] {
        assert_eq!(
            canonicalise(json.as_bytes()),
            Err(CanonicalJsonError::DuplicateMember { name: "z".to_owned() }),
            "{json}"
        );
    }
}

#[test]
fn nesting_is_accepted_up_to_the_limit() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert_borrowed(&nested(JSON_DEPTH_MAX));
    for depth in [JSON_DEPTH_MAX + 1, 1_000_000] {
        assert_eq!(canonicalise(nested(depth).as_bytes()), Err(CanonicalJsonError::TooDeep));
        assert_eq!(canonicalise("[".repeat(depth).as_bytes()), Err(CanonicalJsonError::TooDeep));
    }
    let objects = "{\"a\":".repeat(JSON_DEPTH_MAX + 1);
    assert_eq!(canonicalise(objects.as_bytes()), Err(CanonicalJsonError::TooDeep));
    assert_eq!(members(objects.as_bytes()), Err(CanonicalJsonError::TooDeep));
}

#[test]
fn what_is_not_json_is_refused() {
    for json in [
        "",
        " ",
        "{",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{\"a\":1 \"b\":2}",
        "{a:1}",
        "{'a':1}",
        "tru",
        "nul",
        "nullx",
        "True",
        "01",
        "-",
        "+1",
        "1.",
        ".5",
        "1e",
        "1e+",
        "0x1",
        "00",
        "-01",
        "NaN",
        "Infinity",
        "\"",
        "\"a",
        "\"\\",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\t\"",
        "\"\n\"",
        "1 1",
        "{}{}",
        "[]x",
        "\u{feff}{}",
        "/**/1",
        "\"\\ud800\"",
        "\"\\ud800x\"",
        "\"\\udc00\"",
        "\"\\ud800\\ud800\"",
        "\"\\ud800\\n\"",
        "\"\\ud83d\\u0041\"",
        "\u{a0}1",
        "\"\\é\"",
    ] {
        let refusal = canonicalise(json.as_bytes());
        assert!(
            matches!(refusal, Err(CanonicalJsonError::Malformed { .. })),
            "{json:?} {refusal:?}"
        );
    }
    for json in [&b"\"\xff\""[..], b"\"\xc3\"", b"\"\xed\xa0\x80\"", b"\"\xc0\x80\"", b"\xff"] {
        assert!(matches!(canonicalise(json), Err(CanonicalJsonError::Malformed { .. })));
    }
}

proptest! {
    #[test]
    fn documents_written_freely_become_what_serde_json_writes_sorted(
        value in document(),
        choices in prop::collection::vec(any::<u8>(), 1..64),
    ) {
        let written = written_freely(&value, &choices);
        let canonical = canonicalise(written.as_bytes()).unwrap();
        let expected = serde_json::to_vec(&value).unwrap();
        prop_assert_eq!(&canonical, &expected, "{}", written);
        prop_assert_eq!(&serde_json::from_slice::<Value>(&canonical).unwrap(), &serde_json::from_str::<Value>(&written).unwrap());
        prop_assert_eq!(matches!(canonical, Cow::Borrowed(_)), written.as_bytes() == expected);
    }

    #[test]
    fn canonical_form_is_its_own_canonical_form(value in document(), choices in any::<[u8; 16]>()) {
        let written = written_freely(&value, &choices);
        let once = canonicalise(written.as_bytes()).unwrap();
        prop_assert!(matches!(canonicalise(&once).unwrap(), Cow::Borrowed(same) if *same == *once));
    }

    #[test]
    fn bytes_are_accepted_only_if_serde_json_accepts_them(
        value in document(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut json = serde_json::to_vec(&value).unwrap();
        let at = at.index(json.len());
        json[at] = byte;
        if let Ok(canonical) = canonicalise(&json) {
            // serde_json refuses numbers beyond the range of a float.
            if let Ok(value) = serde_json::from_slice::<Value>(&json) {
                prop_assert_eq!(serde_json::from_slice::<Value>(&canonical).unwrap(), value);
            } else {
                prop_assert!(json.iter().any(|byte| matches!(byte, b'e' | b'E')));
            }
        }
    }

    #[test]
    fn members_are_the_pieces_that_canonical_objects_are_made_of(value in document()) {
        let json = serde_json::to_string(&value).unwrap();
        match members(json.as_bytes()) {
            Ok(members) => {
                let raw: Vec<_> = members.iter().map(|m| std::str::from_utf8(m.raw).unwrap()).collect();
                prop_assert_eq!(format!("{{{}}}", raw.join(",")), json.as_str());
                for member in members {
                    let expected = value.get(member.name.as_ref()).unwrap();
                    let expected = expected.to_string();
                    prop_assert_eq!(member.value, expected.as_bytes());
                }
            }
            Err(_) => prop_assert!(!value.is_object()),
        }
    }
}
