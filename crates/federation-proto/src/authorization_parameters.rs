//! Reads the parameters of an X-Matrix header: `name=value`, with commas between
//! (RFC 9110, section 11.4, and the colons that old servers leave unquoted).

use crate::XMatrixError;

const SCHEME: &str = "X-Matrix";

/// The parameters that are still to be read.
pub(crate) struct Parameters<'a> {
    rest: &'a str,
}

impl<'a> Parameters<'a> {
    /// The parameters behind the scheme, which must be X-Matrix in any case of letters.
    pub(crate) fn of(header: &'a str) -> Result<Self, XMatrixError> {
        let header = header.trim_matches(WHITE_SPACE);
        let (scheme, rest) = header.split_once(WHITE_SPACE).unwrap_or((header, ""));
        if scheme.eq_ignore_ascii_case(SCHEME) {
            Ok(Self { rest })
        } else {
            Err(XMatrixError::OtherScheme)
        }
    }

    /// The next parameter: its name as written, and its value without quotes.
    pub(crate) fn next_parameter(&mut self) -> Result<Option<(&'a str, String)>, XMatrixError> {
        // RFC 9110, section 5.6.1: recipients pass over empty elements of a list.
        self.rest = self.rest.trim_start_matches([' ', '\t', ',']);
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (name, value) = self
            .rest
            .split_once('=')
            .ok_or(XMatrixError::Malformed("expected an equals sign behind a parameter's name"))?;
        let name = name.trim_end_matches(WHITE_SPACE);
        if name.is_empty() || !name.bytes().all(is_token_byte) {
            return Err(XMatrixError::Malformed("a parameter's name is not a token"));
        }
        self.rest = value.trim_start_matches(WHITE_SPACE);
        let value = match self.rest.strip_prefix('"') {
            Some(quoted) => self.quoted(quoted)?,
            None => self.unquoted()?,
        };
        self.rest = self.rest.trim_start_matches(WHITE_SPACE);
        if self.rest.is_empty() || self.rest.starts_with(',') {
            Ok(Some((name, value)))
        } else {
            Err(XMatrixError::Malformed("expected a comma between parameters"))
        }
    }

    fn quoted(&mut self, text: &'a str) -> Result<String, XMatrixError> {
        let mut value = String::new();
        let mut characters = text.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.rest = &text[at + 1..];
                    return Ok(value);
                }
                '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
                _ => value.push(character),
            }
        }
        Err(XMatrixError::Malformed("a quoted value has no closing quote"))
    }

    fn unquoted(&mut self) -> Result<String, XMatrixError> {
        let end = self.rest.find([' ', '\t', ',']).unwrap_or(self.rest.len());
        let (value, rest) = self.rest.split_at(end);
        if value.is_empty() || value.contains('"') {
            return Err(XMatrixError::Malformed("a value is neither a token nor quoted"));
        }
        self.rest = rest;
        Ok(value.to_owned())
    }
}

const WHITE_SPACE: [char; 2] = [' ', '\t'];

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
