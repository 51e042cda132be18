//! Reads and writes the lexical elements of JSON over bytes, without building values.

use std::borrow::Cow;

use crate::CanonicalJsonError;

/// A cursor over JSON text that is known to be UTF-8.
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

/// A string element.
pub(crate) struct JsonString<'a> {
    /// The unescaped text.
    pub(crate) text: Cow<'a, str>,
    /// Whether it was written in canonical form.
    pub(crate) canonical: bool,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(json: &'a [u8]) -> Result<Self, CanonicalJsonError> {
        let text = std::str::from_utf8(json).map_err(|error| CanonicalJsonError::Malformed {
            at: error.valid_up_to(),
            expected: "UTF-8",
        })?;
        Ok(Self { text, at: 0 })
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn jump_to(&mut self, at: usize) {
        self.at = at;
    }

    pub(crate) fn bytes_since(&self, start: usize) -> &'a [u8] {
        &self.text.as_bytes()[start..self.at]
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Passes over white space; tells whether there was any.
    pub(crate) fn skip_white_space(&mut self) -> bool {
        let start = self.at;
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.at > start
    }

    /// Passes over `byte` if it is next.
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    pub(crate) fn expect(
        &mut self,
        byte: u8,
        expected: &'static str,
    ) -> Result<(), CanonicalJsonError> {
        if self.take(byte) { Ok(()) } else { Err(self.malformed(expected)) }
    }

    pub(crate) fn end(&self) -> Result<(), CanonicalJsonError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.malformed("the end")),
        }
    }

    pub(crate) fn malformed(&self, expected: &'static str) -> CanonicalJsonError {
        CanonicalJsonError::Malformed { at: self.at, expected }
    }

    /// Passes over `true`, `false` or `null`.
    pub(crate) fn literal(&mut self) -> Result<(), CanonicalJsonError> {
        let rest = &self.text.as_bytes()[self.at..];
        let literal = ["true", "false", "null"]
            .into_iter()
            .find(|literal| rest.starts_with(literal.as_bytes()))
            .ok_or_else(|| self.malformed("a value"))?;
        self.at += literal.len();
        Ok(())
    }

    /// Passes over a number and returns its lexeme.
    pub(crate) fn number(&mut self) -> Result<&'a [u8], CanonicalJsonError> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        Ok(self.bytes_since(start))
    }

    fn digits(&mut self) -> Result<(), CanonicalJsonError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(self.malformed("a digit")) }
    }

    /// Passes over a string.
    pub(crate) fn string(&mut self) -> Result<JsonString<'a>, CanonicalJsonError> {
        self.expect(b'"', "a string")?;
        let start = self.at;
        self.run()?;
        if self.peek() == Some(b'"') {
            let text = Cow::Borrowed(&self.text[start..self.at]);
            self.at += 1;
            return Ok(JsonString { text, canonical: true });
        }
        let mut text = self.text[start..self.at].to_owned();
        let mut canonical = true;
        while !self.take(b'"') {
            canonical &= self.escape(&mut text)?;
            let run_start = self.at;
            self.run()?;
            text.push_str(&self.text[run_start..self.at]);
        }
        Ok(JsonString { text: Cow::Owned(text), canonical })
    }

    /// Passes over characters that stand for themselves, up to a quote or a backslash.
    fn run(&mut self) -> Result<(), CanonicalJsonError> {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += plain_length(rest);
        match self.peek() {
            Some(b'"' | b'\\') => Ok(()),
            Some(_) => Err(self.malformed("an escape for the control character")),
            None => Err(self.malformed("a closing quote")),
        }
    }

    /// Decodes one escape; tells whether canonical JSON writes the character this way.
    fn escape(&mut self, text: &mut String) -> Result<bool, CanonicalJsonError> {
        let start = self.at;
        self.expect(b'\\', "an escape")?;
        let selector = self.peek();
        self.at += 1;
        let character = match selector {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b't') => '\t',
            Some(b'n') => '\n',
            Some(b'f') => '\u{c}',
            Some(b'r') => '\r',
            Some(b'u') => self.unicode_escape()?,
            _ => {
                self.at = start;
                return Err(self.malformed("an escape"));
            }
        };
        text.push(character);
        Ok(is_canonical_escape(self.bytes_since(start), character))
    }

    fn unicode_escape(&mut self) -> Result<char, CanonicalJsonError> {
        let first = self.four_hex_digits()?;
        if let Some(character) = char::from_u32(first) {
            return Ok(character);
        }
        let escape_follows =
            (0xd800..0xdc00).contains(&first) && self.take(b'\\') && self.take(b'u');
        if !escape_follows {
            return Err(self.malformed("a surrogate pair"));
        }
        let second = self.four_hex_digits()?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err(self.malformed("a surrogate pair"));
        }
        let code_point = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        char::from_u32(code_point).ok_or_else(|| self.malformed("a surrogate pair"))
    }

    fn four_hex_digits(&mut self) -> Result<u32, CanonicalJsonError> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            code = code * 16 + digit.ok_or_else(|| self.malformed("four hexadecimal digits"))?;
            self.at += 1;
        }
        Ok(code)
    }
}

fn is_canonical_escape(written: &[u8], character: char) -> bool {
    let mut canonical = Vec::with_capacity(8);
    push_escaped(&mut canonical, character);
    canonical == written
}

fn must_be_escaped(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

/// Bytes that are looked at together: without a branch for each, a few instructions compare them all.
const STRIDE: usize = 32;

/// How many bytes at the beginning of `bytes` stand for themselves in a string.
fn plain_length(bytes: &[u8]) -> usize {
    let is_plain =
        |stride: &&[u8]| !stride.iter().fold(false, |found, &byte| found | must_be_escaped(byte));
    let strides = bytes.chunks_exact(STRIDE).take_while(is_plain).count() * STRIDE;
    let rest = &bytes[strides..];
    strides + rest.iter().position(|&byte| must_be_escaped(byte)).unwrap_or(rest.len())
}

/// Writes `text` as a canonical string.
pub(crate) fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let (plain, behind) = rest.split_at(plain_length(rest));
        out.extend_from_slice(plain);
        let Some((&byte, behind)) = behind.split_first() else { break };
        push_escaped(out, char::from(byte));
        rest = behind;
    }
    out.push(b'"');
}

fn push_escaped(out: &mut Vec<u8>, character: char) {
    match character {
        '"' => out.extend_from_slice(br#"\""#),
        '\\' => out.extend_from_slice(br"\\"),
        '\u{8}' => out.extend_from_slice(br"\b"),
        '\t' => out.extend_from_slice(br"\t"),
        '\n' => out.extend_from_slice(br"\n"),
        '\u{c}' => out.extend_from_slice(br"\f"),
        '\r' => out.extend_from_slice(br"\r"),
        control if control < ' ' => {
            out.extend_from_slice(format!("\\u{:04x}", u32::from(control)).as_bytes());
        }
        plain => out.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}
