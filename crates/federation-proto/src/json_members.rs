//! Splits an object into its top-level members without touching their bytes.

use std::borrow::Cow;

use crate::CanonicalJsonError;
use crate::json_survey::Survey;

/// One member of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member<'a> {
    /// The unescaped name.
    pub name: Cow<'a, str>,
    /// The value's bytes, as received, without white space around them.
    pub value: &'a [u8],
    /// The member's bytes, as received: from the name's opening quote to the value's end.
    pub raw: &'a [u8],
}

/// The members of the object `json`, in their order; anything but a well-formed object without
/// duplicate members (at any depth) is an error.
pub fn members(json: &[u8]) -> Result<Vec<Member<'_>>, CanonicalJsonError> {
    let mut survey = Survey::new(json)?;
    let mut members: Vec<Member<'_>> = Vec::new();
    survey.white_space();
    survey.nested(|survey| {
        survey.each_member(|survey, name, start| {
            let value_start = survey.scanner.at();
            survey.value()?;
            let value = survey.scanner.bytes_since(value_start);
            members.push(Member { name, value, raw: survey.scanner.bytes_since(start) });
            Ok(())
        })
    })?;
    survey.white_space();
    survey.scanner.end()?;
    refuse_duplicates(&members)?;
    Ok(members)
}

fn refuse_duplicates(members: &[Member<'_>]) -> Result<(), CanonicalJsonError> {
    if members.windows(2).all(|pair| pair[0].name < pair[1].name) {
        return Ok(());
    }
    let mut names: Vec<&str> = members.iter().map(|member| member.name.as_ref()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(CanonicalJsonError::DuplicateMember { name: pair[0].to_owned() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_bytes_and_their_order() {
        let json = b" { \"b\" : [ 1 , 2 ] , \"\\u0061\":{\"x\":-0} } ";
        let members = members(json).unwrap();
        assert_eq!(members.len(), 2);
        assert_eq!(members[0].name, "b");
        assert_eq!(members[0].value, b"[ 1 , 2 ]");
        assert_eq!(members[0].raw, b"\"b\" : [ 1 , 2 ]");
        assert_eq!(members[1].name, "a");
        assert_eq!(members[1].value, b"{\"x\":-0}");
        assert_eq!(members[1].raw, b"\"\\u0061\":{\"x\":-0}");
    }

    #[test]
    fn an_empty_object_has_no_members() {
        assert_eq!(members(b"{}"), Ok(vec![]));
        assert_eq!(members(b" { } "), Ok(vec![]));
    }

    #[test]
    fn a_member_named_twice_is_refused_however_it_is_escaped() {
        let refused = Err(CanonicalJsonError::DuplicateMember { name: "a".to_owned() });
        assert_eq!(members(br#"{"a":1,"b":2,"\u0061":3}"#), refused);
        assert_eq!(members(br#"{"n":{"a":1,"a":2}}"#), refused);
    }

    #[test]
    fn anything_but_one_object_is_refused() {
        for json in ["", "[]", "1", "{", "{}x", "{} {}", "{\"a\":}", "{\"a\":1,}", "{,}", "{a:1}"] {
            assert!(members(json.as_bytes()).is_err(), "{json}");
        }
    }
}
