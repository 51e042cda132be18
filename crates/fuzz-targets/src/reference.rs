//! Canonical JSON by the letter of the specification, on serde_json's parser: slow, plain, and without a line of what
//! it checks.

pub(crate) mod redaction;
pub(crate) mod signature;

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Deepest nesting: a limit of our own, which the specification leaves open.
const DEPTH_MAX: usize = 128;

/// The canonical form of `json`; `None` if it is not well-formed, names a member twice or is nested too deep.
pub(crate) fn canonical(json: &[u8]) -> Option<String> {
    let mut out = String::new();
    write(serde_json::from_slice(json).ok()?, 0, &mut out)?;
    Some(out)
}

/// The members of an object and their canonical values, in canonical order.
pub(crate) fn members(json: &[u8]) -> Option<Vec<(String, String)>> {
    let canonical = canonical(json)?;
    let Members(members) = serde_json::from_str(&canonical).ok()?;
    Some(members.into_iter().map(|(name, value)| (name, value.get().to_owned())).collect())
}

/// The object that has these members, which must be in canonical order.
pub(crate) fn object(members: &[(String, String)]) -> String {
    let members = members.iter().map(|(name, value)| format!("{}:{value}", quoted(name)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

fn write(value: &RawValue, depth: usize, out: &mut String) -> Option<()> {
    let text = value.get();
    match text.as_bytes().first()? {
        b'{' | b'[' if depth == DEPTH_MAX => return None,
        b'{' => {
            let Members(mut members) = serde_json::from_str(text).ok()?;
            members.sort_by(|(one, _), (other, _)| one.as_bytes().cmp(other.as_bytes()));
            if members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
                return None;
            }
            out.push('{');
            for (position, (name, value)) in members.into_iter().enumerate() {
                out.push_str(if position > 0 { "," } else { "" });
                out.push_str(&quoted(&name));
                out.push(':');
                write(value, depth + 1, out)?;
            }
            out.push('}');
        }
        b'[' => {
            out.push('[');
            let elements: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            for (position, element) in elements.into_iter().enumerate() {
                out.push_str(if position > 0 { "," } else { "" });
                write(element, depth + 1, out)?;
            }
            out.push(']');
        }
        b'"' => out.push_str(&quoted(&serde_json::from_str::<String>(text).ok()?)),
        _ => out.push_str(if text == "-0" { "0" } else { text }),
    }
    Some(())
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("text is always JSON")
}

/// Every member of an object, those named twice included.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}
