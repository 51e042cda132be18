//! Hashes as the wire writes them: lower-case hex digits.

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// The `N` bytes that `text` writes in exactly so many lower-case hex digits; `None` if it writes anything else.
pub fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_again(bytes: [u8; 4]) {
            prop_assert_eq!(parse_hex(&hex(&bytes)), Some(bytes));
        }
    }

    #[test]
    fn other_digits_and_other_lengths_are_nothing() {
        assert_eq!(parse_hex("00ff"), Some([0, 255]));
        for text in ["", "00f", "00fff", "00FF", "+1-1", "0xff", "ää", " 0ff"] {
            assert_eq!(parse_hex::<2>(text), None, "{text}");
        }
    }
}
