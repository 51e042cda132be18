//! Canonical JSON against a reading of the specification that shares no code with it.

use std::borrow::Cow;

use restante_federation_proto::{canonicalise, members};

use crate::reference;

pub(crate) fn canonical_json(json: &[u8]) {
    let canonical = canonicalise(json).ok();
    let expected = reference::canonical(json);
    assert_eq!(
        canonical.as_deref().map(String::from_utf8_lossy),
        expected.as_deref().map(Cow::Borrowed)
    );
    let Some(canonical) = canonical else { return };
    assert_eq!(matches!(canonical, Cow::Borrowed(_)), *json == *canonical);
    let again = canonicalise(&canonical);
    assert!(matches!(again, Ok(Cow::Borrowed(same)) if *same == *canonical), "it is its own form");
}

pub(crate) fn json_members(json: &[u8]) {
    let expected = reference::members(json);
    let Ok(members) = members(json) else {
        assert_eq!(expected, None, "what has members and a canonical form can be split");
        return;
    };
    let pieces: Vec<&[u8]> = members.iter().map(|member| member.raw).collect();
    let joined = [b"{".as_slice(), &pieces.join(&b','), b"}"].concat();
    assert_eq!(reference::canonical(&joined), reference::canonical(json));
    let mut found: Vec<(String, String)> = members
        .iter()
        .map(|member| {
            assert!(member.raw.ends_with(member.value) && member.raw.starts_with(b"\""));
            let value = reference::canonical(member.value).expect("a member's value is JSON");
            (member.name.clone().into_owned(), value)
        })
        .collect();
    found.sort();
    assert_eq!(Some(found), expected);
}
