//! Compression on the wire: the content coding `zstd` (RFC 8878; RFC 9659), between sides that both say that they take it.
//!
//! A signature is over the content, not over how it is coded: compressing comes after signing, and reading before
//! verifying. Whoever sends nothing of the kind gets nothing of the kind.

use std::io::Read as _;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use http::{HeaderMap, HeaderValue};

use crate::body::{BodyError, BoxError};

/// The level: mail is mostly base64, of which higher levels save hardly more and take twice the time.
const LEVEL: i32 = 1;

/// Bytes below which nothing is compressed: a packet is sent all the same.
const COMPRESS_BYTES_MIN: usize = 1024;

/// The largest window that must be supported, and may be used: 8 MiB (RFC 9659, section 3), as a power of two.
const WINDOW_LOG_MAX: u32 = 23;

/// How often longer than its coding content may be that a stranger sends. Mail becomes a half, the most repetitive of it a
/// tenth; a megabyte must not become a thousand before anybody has looked at its signature.
const EXPANSION_MAX: usize = 16;

/// Bytes of content that may be read from a stranger whatever they were coded as.
const EXPANSION_FREE_BYTES: usize = 64 * 1024;

/// Bytes that are read at a time.
const STEP_BYTES: usize = 64 * 1024;

/// How the content of a message is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentCoding {
    /// As it is.
    Identity,
    /// By zstd.
    Zstd,
}

/// A coding that is not read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this content coding is not taken here, only zstd or none")]
pub struct UnknownCoding;

impl ContentCoding {
    /// How the content of a message with these headers is coded.
    pub fn of(headers: &HeaderMap) -> Result<Self, UnknownCoding> {
        let mut codings = headers.get_all(CONTENT_ENCODING).into_iter();
        let coding = match (codings.next(), codings.next()) {
            (None, _) => return Ok(Self::Identity),
            (Some(coding), None) => coding.to_str().map_err(|_| UnknownCoding)?.trim(),
            (Some(_), Some(_)) => return Err(UnknownCoding),
        };
        if coding.eq_ignore_ascii_case("zstd") {
            return Ok(Self::Zstd);
        }
        if coding.eq_ignore_ascii_case("identity") {
            return Ok(Self::Identity);
        }
        Err(UnknownCoding)
    }

    /// What whoever sent these headers wants to be sent: zstd if it names that with a weight above none.
    pub fn wanted(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(ACCEPT_ENCODING).into_iter();
        let mut codings =
            lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
        let takes_zstd = codings.any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            parts.next().is_some_and(|name| name.eq_ignore_ascii_case("zstd"))
                && !parts.any(is_weight_of_none)
        });
        if takes_zstd { Self::Zstd } else { Self::Identity }
    }

    /// Says in `headers` that zstd is taken here: in a request for its answer, in an answer for the requests that
    /// follow (RFC 9110, section 12.5.3).
    pub fn offer(headers: &mut HeaderMap) {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("zstd"));
    }

    /// `content` in this coding, and what the headers must say then; as it is where coding would not shorten it, or so much
    /// that it would not be read.
    pub fn encode(self, content: Bytes) -> (Bytes, Option<HeaderValue>) {
        if self == Self::Zstd
            && content.len() >= COMPRESS_BYTES_MIN
            && let Ok(coded) = zstd::bulk::compress(&content, LEVEL)
            && coded.len() < content.len()
            && content.len() <= strangers_max(coded.len())
        {
            return (coded.into(), Some(HeaderValue::from_static("zstd")));
        }
        (content, None)
    }

    /// Bytes that may come of `coded`, where a stranger sent it, of the `max` that may come at all.
    pub fn strangers_max(self, coded: &[u8], max: usize) -> usize {
        match self {
            Self::Identity => max,
            Self::Zstd => max.min(strangers_max(coded.len())),
        }
    }

    /// The content that is coded as `coded`, of at most `max` bytes. Before it takes memory for more it asks `room`.
    pub fn decode(
        self,
        coded: Bytes,
        max: usize,
        room: impl FnMut(usize) -> Result<(), BoxError>,
    ) -> Result<Bytes, BodyError> {
        match self {
            Self::Identity => Ok(coded),
            Self::Zstd => expand(&coded, max, room),
        }
    }
}

/// Whether a parameter says `q=0`, in whatever spelling.
fn is_weight_of_none(parameter: &str) -> bool {
    let weight = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
    weight.is_some_and(|weight| weight.parse() == Ok(0.0_f32))
}

fn strangers_max(coded_bytes: usize) -> usize {
    coded_bytes.saturating_mul(EXPANSION_MAX).max(EXPANSION_FREE_BYTES)
}

fn expand(
    coded: &[u8],
    max: usize,
    mut room: impl FnMut(usize) -> Result<(), BoxError>,
) -> Result<Bytes, BodyError> {
    let broken = |error: std::io::Error| BodyError::Broken(error.into());
    let mut decoder = zstd::stream::read::Decoder::with_buffer(coded).map_err(broken)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(broken)?;
    let mut content = Vec::new();
    let mut step = vec![0; STEP_BYTES];
    loop {
        let read = decoder.read(&mut step).map_err(broken)?;
        if read == 0 {
            return Ok(content.into());
        }
        if content.len() + read > max {
            return Err(BodyError::TooLarge { max });
        }
        room(read).map_err(BodyError::Broken)?;
        content.extend_from_slice(&step[..read]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(name: http::HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    fn anywhere(_: usize) -> Result<(), BoxError> {
        Ok(())
    }

    fn read(coded: impl Into<Bytes>, max: usize) -> Result<Bytes, BodyError> {
        ContentCoding::Zstd.decode(coded.into(), max, anywhere)
    }

    #[test]
    fn a_message_is_coded_as_its_one_header_says() {
        for (values, coding) in [
            (&[][..], Ok(ContentCoding::Identity)),
            (&["zstd"], Ok(ContentCoding::Zstd)),
            (&["ZStd "], Ok(ContentCoding::Zstd)),
            (&["identity"], Ok(ContentCoding::Identity)),
            (&["gzip"], Err(UnknownCoding)),
            (&["zstd, zstd"], Err(UnknownCoding)),
            (&["zstd", "zstd"], Err(UnknownCoding)),
            (&[""], Err(UnknownCoding)),
        ] {
            assert_eq!(ContentCoding::of(&headers(CONTENT_ENCODING, values)), coding, "{values:?}");
        }
    }

    #[test]
    fn zstd_goes_to_those_who_name_it_with_a_weight() {
        let wanted = |values: &[&'static str]| {
            ContentCoding::wanted(&headers(ACCEPT_ENCODING, values)) == ContentCoding::Zstd
        };
        for takes in [&["zstd"][..], &["gzip, zstd;q=0.5"], &["gzip", "br, ZSTD"]] {
            assert!(wanted(takes), "{takes:?}");
        }
        for refuses in [&[][..], &["gzip, br"], &["zstd;q=0"], &["zstd; q=0.000"], &["*"]] {
            assert!(!wanted(refuses), "{refuses:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_coded_is_read_again(content in prop::collection::vec(0_u8..4, 0..5000)) {
            let (coded, says) = ContentCoding::Zstd.encode(content.clone().into());
            let headers = says.into_iter().map(|value| (CONTENT_ENCODING, value)).collect();
            let coding = ContentCoding::of(&headers).unwrap();
            let read = coding.decode(coded, content.len(), anywhere).unwrap();
            prop_assert_eq!(&read[..], &content[..]);
        }

        #[test]
        fn any_bytes_are_read_or_refused(coded: Vec<u8>) {
            if let Ok(content) = read(coded, 100_000) {
                prop_assert!(content.len() <= 100_000);
            }
        }
    }

    #[test]
    fn what_coding_does_not_shorten_goes_out_as_it_is() {
        let short = Bytes::from_static(b"{}");
        assert_eq!(ContentCoding::Zstd.encode(short.clone()), (short, None));
        let long = Bytes::from(vec![b'a'; COMPRESS_BYTES_MIN]);
        assert!(ContentCoding::Zstd.encode(long.clone()).1.is_some());
        assert_eq!(ContentCoding::Identity.encode(long.clone()), (long, None));
    }

    #[test]
    fn content_beyond_the_limit_or_cut_off_is_refused() {
        let coded = |bytes: usize| zstd::bulk::compress(&vec![0; bytes], LEVEL).unwrap();
        assert_eq!(read(coded(5000), 5000).unwrap().len(), 5000);
        assert!(matches!(read(coded(5001), 5000), Err(BodyError::TooLarge { max: 5000 })));
        assert_eq!(read(coded(16 << 20), 16 << 20).unwrap().len(), 16 << 20);
        let mut cut = coded(5000);
        cut.pop();
        assert!(matches!(read(cut, 5000), Err(BodyError::Broken(_))));
    }

    #[test]
    fn what_nobody_would_read_from_a_stranger_is_not_coded() {
        let zeros = |bytes: usize| ContentCoding::Zstd.encode(vec![0; bytes].into());
        assert!(zeros(EXPANSION_FREE_BYTES).1.is_some());
        assert_eq!(zeros(4 << 20).1, None);
        let most = |coded: usize| ContentCoding::Zstd.strangers_max(&vec![0; coded], 1 << 20);
        assert_eq!(
            (most(10), most(10_000), most(1 << 20)),
            (EXPANSION_FREE_BYTES, 160_000, 1 << 20)
        );
        assert_eq!(ContentCoding::Identity.strangers_max(&[], 7), 7);
    }

    #[test]
    fn room_is_asked_for_before_memory_is_taken() {
        let coded = zstd::bulk::compress(&vec![0; 5000], LEVEL).unwrap();
        let full = |_| Err("no room".into());
        let refused = ContentCoding::Zstd.decode(coded.into(), 5000, full).unwrap_err();
        assert!(matches!(refused, BodyError::Broken(reason) if reason.to_string() == "no room"));
    }
}
