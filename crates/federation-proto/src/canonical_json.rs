//! Brings JSON into the canonical form that Matrix signs, over bytes, keeping number lexemes.

use std::borrow::Cow;

use crate::json_scanner::{Scanner, push_string};
use crate::json_survey::{DisorderedObject, Survey};

/// Deepest nesting that is accepted; deeper documents are refused before they can exhaust the stack.
pub const JSON_DEPTH_MAX: usize = 128;

/// Why a document has no canonical form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalJsonError {
    /// Not well-formed JSON.
    #[error("malformed JSON at byte {at}: expected {expected}")]
    Malformed {
        /// Offset of the first byte that does not fit.
        at: usize,
        /// What would have fitted.
        expected: &'static str,
    },
    /// An object names the same member twice.
    #[error("an object names the member {name:?} twice")]
    DuplicateMember {
        /// The member's name.
        name: String,
    },
    /// Nested deeper than [`JSON_DEPTH_MAX`].
    #[error("nested deeper than {JSON_DEPTH_MAX} levels")]
    TooDeep,
}

/// Returns the canonical form of `json` (Matrix specification, appendix "Canonical JSON").
///
/// Numbers keep the lexeme they came with, but for `-0`, which every implementation writes as `0`:
/// other servers sign floats and integers beyond 2^53, and only their own lexeme verifies.
/// Input that is canonical already is borrowed, after one pass that also proves it well-formed
/// and free of duplicate members.
pub fn canonicalise(json: &[u8]) -> Result<Cow<'_, [u8]>, CanonicalJsonError> {
    let mut survey = Survey::new(json)?;
    survey.white_space();
    survey.value()?;
    survey.white_space();
    survey.scanner.end()?;
    if survey.canonical {
        return Ok(Cow::Borrowed(json));
    }
    Rewrite::of(survey, json.len()).run().map(Cow::Owned)
}

/// Writes the canonical form of what a survey found well-formed.
struct Rewrite<'a> {
    scanner: Scanner<'a>,
    /// By offset.
    disordered: Vec<DisorderedObject>,
    out: Vec<u8>,
}

impl<'a> Rewrite<'a> {
    fn of(survey: Survey<'a>, length: usize) -> Self {
        let Survey { scanner, mut disordered, .. } = survey;
        disordered.sort_unstable_by_key(|object| object.start);
        Self { scanner, disordered, out: Vec::with_capacity(length) }
    }

    fn run(mut self) -> Result<Vec<u8>, CanonicalJsonError> {
        self.scanner.jump_to(0);
        self.scanner.skip_white_space();
        self.value()?;
        Ok(self.out)
    }

    fn value(&mut self) -> Result<(), CanonicalJsonError> {
        match self.scanner.peek() {
            Some(b'{') => self.object(),
            Some(b'[') => self.sequence(b'[', b']', Self::value),
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => {
                let lexeme = self.scanner.number()?;
                self.out.extend_from_slice(if lexeme == b"-0" { b"0" } else { lexeme });
                Ok(())
            }
            _ => {
                let start = self.scanner.at();
                self.scanner.literal()?;
                self.out.extend_from_slice(self.scanner.bytes_since(start));
                Ok(())
            }
        }
    }

    fn string(&mut self) -> Result<(), CanonicalJsonError> {
        let string = self.scanner.string()?;
        push_string(&mut self.out, &string.text);
        Ok(())
    }

    fn object(&mut self) -> Result<(), CanonicalJsonError> {
        let start = self.scanner.at();
        let Ok(index) = self.disordered.binary_search_by_key(&start, |object| object.start) else {
            return self.sequence(b'{', b'}', Self::member);
        };
        let end = self.disordered[index].end;
        let members = std::mem::take(&mut self.disordered[index].members);
        self.out.push(b'{');
        for (position, member) in members.into_iter().enumerate() {
            if position > 0 {
                self.out.push(b',');
            }
            self.scanner.jump_to(member);
            self.member()?;
        }
        self.out.push(b'}');
        self.scanner.jump_to(end);
        Ok(())
    }

    fn member(&mut self) -> Result<(), CanonicalJsonError> {
        self.string()?;
        self.scanner.skip_white_space();
        self.scanner.expect(b':', "a colon")?;
        self.out.push(b':');
        self.scanner.skip_white_space();
        self.value()
    }

    /// Copies the elements of an array, or of an object in order, with the bytes around them.
    fn sequence(
        &mut self,
        open: u8,
        close: u8,
        element: fn(&mut Self) -> Result<(), CanonicalJsonError>,
    ) -> Result<(), CanonicalJsonError> {
        self.scanner.expect(open, "an array or an object")?;
        self.out.push(open);
        self.scanner.skip_white_space();
        while !self.scanner.take(close) {
            if self.scanner.take(b',') {
                self.out.push(b',');
                self.scanner.skip_white_space();
            }
            element(self)?;
            self.scanner.skip_white_space();
        }
        self.out.push(close);
        Ok(())
    }
}
