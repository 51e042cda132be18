//! Surveys a JSON value in one pass: is it well-formed, is it canonical, and if not, what must move?

use std::borrow::Cow;

use crate::json_scanner::Scanner;
use crate::{CanonicalJsonError, JSON_DEPTH_MAX};

/// What one pass over a value finds out: that it is well-formed, and what canonical form asks for.
pub(crate) struct Survey<'a> {
    pub(crate) scanner: Scanner<'a>,
    /// Whether everything surveyed so far is in canonical form.
    pub(crate) canonical: bool,
    /// Objects whose members are out of order, as they were closed.
    pub(crate) disordered: Vec<DisorderedObject>,
    /// Members of the objects that are open: one stack, so that an object costs no allocation.
    open_members: Vec<OpenMember<'a>>,
    depth: usize,
}

/// An object whose members canonical form reorders.
pub(crate) struct DisorderedObject {
    /// Offset of its opening brace.
    pub(crate) start: usize,
    /// Offset behind its closing brace.
    pub(crate) end: usize,
    /// Offsets of the members' names, in canonical order.
    pub(crate) members: Box<[usize]>,
}

struct OpenMember<'a> {
    name: Cow<'a, str>,
    start: usize,
}

impl<'a> Survey<'a> {
    pub(crate) fn new(json: &'a [u8]) -> Result<Self, CanonicalJsonError> {
        Ok(Self {
            scanner: Scanner::new(json)?,
            canonical: true,
            disordered: Vec::new(),
            open_members: Vec::new(),
            depth: 0,
        })
    }

    /// Passes over white space, which canonical form has none of.
    pub(crate) fn white_space(&mut self) {
        self.canonical &= !self.scanner.skip_white_space();
    }

    /// Passes over one value.
    pub(crate) fn value(&mut self) -> Result<(), CanonicalJsonError> {
        match self.scanner.peek() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'"') => self.string().map(drop),
            Some(b'-' | b'0'..=b'9') => {
                self.canonical &= self.scanner.number()? != b"-0";
                Ok(())
            }
            _ => self.scanner.literal(),
        }
    }

    /// Passes over an array or an object, one level deeper.
    pub(crate) fn nested(
        &mut self,
        container: impl FnOnce(&mut Self) -> Result<(), CanonicalJsonError>,
    ) -> Result<(), CanonicalJsonError> {
        if self.depth == JSON_DEPTH_MAX {
            return Err(CanonicalJsonError::TooDeep);
        }
        self.depth += 1;
        container(self)?;
        self.depth -= 1;
        Ok(())
    }

    fn array(&mut self) -> Result<(), CanonicalJsonError> {
        self.scanner.expect(b'[', "an array")?;
        self.white_space();
        if self.scanner.take(b']') {
            return Ok(());
        }
        loop {
            self.white_space();
            self.value()?;
            self.white_space();
            if self.scanner.take(b']') {
                return Ok(());
            }
            self.scanner.expect(b',', "a comma or the array's end")?;
        }
    }

    fn object(&mut self) -> Result<(), CanonicalJsonError> {
        let start = self.scanner.at();
        let first_member = self.open_members.len();
        let mut ordered = true;
        self.each_member(|survey, name, name_start| {
            ordered &= survey.open_members[first_member..]
                .last()
                .is_none_or(|previous| previous.name < name);
            survey.open_members.push(OpenMember { name, start: name_start });
            survey.value()
        })?;
        if !ordered {
            self.record_disorder(start, first_member)?;
        }
        self.open_members.truncate(first_member);
        Ok(())
    }

    /// Passes over an object, calling `value` behind the colon of each member, with its name and
    /// the offset where the member begins.
    pub(crate) fn each_member(
        &mut self,
        mut value: impl FnMut(&mut Self, Cow<'a, str>, usize) -> Result<(), CanonicalJsonError>,
    ) -> Result<(), CanonicalJsonError> {
        self.scanner.expect(b'{', "an object")?;
        self.white_space();
        if self.scanner.take(b'}') {
            return Ok(());
        }
        loop {
            self.white_space();
            let start = self.scanner.at();
            let name = self.string()?;
            self.white_space();
            self.scanner.expect(b':', "a colon")?;
            self.white_space();
            value(self, name, start)?;
            self.white_space();
            if self.scanner.take(b'}') {
                return Ok(());
            }
            self.scanner.expect(b',', "a comma or the object's end")?;
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, CanonicalJsonError> {
        let string = self.scanner.string()?;
        self.canonical &= string.canonical;
        Ok(string.text)
    }

    fn record_disorder(
        &mut self,
        start: usize,
        first_member: usize,
    ) -> Result<(), CanonicalJsonError> {
        self.canonical = false;
        let members = &mut self.open_members[first_member..];
        members.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        if let Some(pair) = members.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(CanonicalJsonError::DuplicateMember {
                name: pair[0].name.clone().into_owned(),
            });
        }
        let members = members.iter().map(|member| member.start).collect();
        self.disordered.push(DisorderedObject { start, end: self.scanner.at(), members });
        Ok(())
    }
}
