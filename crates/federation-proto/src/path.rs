//! Path segments, escaped the way Go's `url.PathEscape` does, so that Dendrite and we sign the same target.

/// Escapes one path segment: keeps letters, digits and `@ : = + $ & ~ - _ .`, escapes every other byte.
pub fn escape_path_segment(segment: &str) -> String {
    let mut escaped = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => escaped.push(char::from(byte)),
            b'@' | b':' | b'=' | b'+' | b'$' | b'&' | b'~' | b'-' | b'_' | b'.' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// Decodes the percent escapes of one path segment; `None` for broken escapes or bytes that are not UTF-8.
pub fn unescape_path_segment(segment: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            hex_digit(bytes.next()?)? * 16 + hex_digit(bytes.next()?)?
        } else {
            byte
        });
    }
    String::from_utf8(decoded).ok()
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn broken_escapes_are_refused() {
        for segment in ["%", "%4", "%zz", "a%2", "%+1", "%ff", "%C3"] {
            assert_eq!(unescape_path_segment(segment), None, "{segment}");
        }
    }

    #[test]
    fn escapes_are_decoded_in_either_case() {
        assert_eq!(unescape_path_segment("%c3%BC%2f+").as_deref(), Some("ü/+"));
    }

    proptest! {
        #[test]
        fn unescaping_undoes_escaping(segment in any::<String>()) {
            let escaped = escape_path_segment(&segment);
            prop_assert!(escaped.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/'));
            prop_assert_eq!(unescape_path_segment(&escaped), Some(segment));
        }
    }
}
