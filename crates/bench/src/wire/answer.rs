//! Where an HTTP/1.1 answer ends. Pure.

use anyhow::{Context as _, bail};

/// What is looked at of an answer's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    /// Bytes up to the body.
    pub(super) bytes: usize,
    pub(super) length: Length,
}

/// How long the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    Bytes(usize),
    /// It says so itself.
    Chunked,
}

impl Head {
    /// The head at the beginning of `received`; none if it is not all there yet.
    pub(super) fn of(received: &[u8]) -> anyhow::Result<Option<Self>> {
        let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        let text = std::str::from_utf8(&received[..end]).context("a head that is no text")?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let status = status.and_then(|code| code.parse().ok()).context("no status came")?;
        let mut length = None;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(Length::Bytes(value.parse().context("a length that is none")?));
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                length = value.eq_ignore_ascii_case("chunked").then_some(Length::Chunked);
            }
        }
        let Some(length) = length else { bail!("an answer does not say how long it is") };
        Ok(Some(Self { status, bytes: end + 4, length }))
    }
}

/// The body that `received` holds in chunks; none if the last one has not come yet.
pub(super) fn from_chunks(mut received: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let Some(end) = received.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
        let line = std::str::from_utf8(&received[..end]).context("a chunk without a size")?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(digits, 16).context("a chunk without a size")?;
        let Some(chunk) = received.get(end + 2..end + 2 + size + 2) else { return Ok(None) };
        if size == 0 {
            return Ok(Some(body));
        }
        body.extend_from_slice(&chunk[..size]);
        received = &received[end + 2 + size + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_its_status_and_where_the_body_ends() {
        let text = b"HTTP/1.1 503 Not now\r\nX: y\r\nContent-Length:  5 \r\n\r\nhello";
        let head = Head::of(text).unwrap().unwrap();
        assert_eq!(head, Head { status: 503, bytes: text.len() - 5, length: Length::Bytes(5) });
        for end in 0..text.len() - 5 {
            assert_eq!(Head::of(&text[..end]).unwrap(), None);
        }
    }

    #[test]
    fn what_is_no_answer_or_ends_with_the_connection_is_refused() {
        for text in ["hello\r\n\r\n", "HTTP/1.1 200 OK\r\nx: y\r\n\r\n", "HTTP/1.1 x\r\n\r\n"] {
            assert!(Head::of(text.as_bytes()).is_err(), "{text}");
        }
        assert!(from_chunks(b"zz\r\n").is_err());
    }

    #[test]
    fn chunks_are_a_body_once_the_last_one_is_there() {
        let text = b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n";
        assert_eq!(from_chunks(text).unwrap().unwrap(), b"abc0123456789");
        for end in 0..text.len() {
            assert_eq!(from_chunks(&text[..end]).unwrap(), None, "{end}");
        }
    }
}
