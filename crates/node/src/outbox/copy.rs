//! A copy of what the homeserver sent: with its signature it can be sent or left again at any time.

use std::borrow::Cow;

use bytes::Bytes;
use restante_relay_api::limits::BODY_BYTES_MAX;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::store::checksum::checksum;

/// The level of zstd: mail is mostly base64, of which higher levels save hardly more and take twice the time.
const LEVEL: i32 = 1;

/// Larger transactions are not looked into: a hundred typing and presence EDUs have 30 KB.
const OF_THE_MOMENT_BYTES_MAX: usize = 64 * 1024;

#[derive(Deserialize)]
struct Shape<'a> {
    #[serde(default)]
    pdus: Option<Vec<IgnoredAny>>,
    #[serde(default, borrow)]
    edus: Option<Vec<EduShape<'a>>>,
}

#[derive(Deserialize)]
struct EduShape<'a> {
    #[serde(borrow)]
    edu_type: Cow<'a, str>,
}

/// Whether a copy of `content` is worth keeping: typing and presence are worth nothing a minute later, and relays let go of
/// what holds nothing else.
pub(crate) fn is_lasting(content: &[u8]) -> bool {
    if content.len() > OF_THE_MOMENT_BYTES_MAX {
        return true;
    }
    let Ok(Shape { pdus, edus }) = serde_json::from_slice(content) else { return true };
    let edus = edus.unwrap_or_default();
    let passing = |edu: &EduShape<'_>| matches!(&*edu.edu_type, "m.typing" | "m.presence");
    let has_pdus = pdus.is_some_and(|pdus| !pdus.is_empty());
    has_pdus || edus.is_empty() || !edus.iter().all(passing)
}

/// A copy as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptCopy {
    /// The target of the homeserver's request.
    pub(crate) target: String,
    /// Its signature.
    pub(crate) authorization: String,
    /// The content, compressed.
    pub(crate) compressed: Vec<u8>,
    /// SHA-256 of that.
    pub(crate) sha256: [u8; 32],
}

impl KeptCopy {
    /// Of a request with this content; `None` if it can't be compressed, for want of memory.
    pub(crate) fn of(target: &str, authorization: &str, content: &[u8]) -> Option<Self> {
        let compressed = zstd::bulk::compress(content, LEVEL).ok()?;
        Some(Self {
            target: target.to_owned(),
            authorization: authorization.to_owned(),
            sha256: checksum(&compressed),
            compressed,
        })
    }

    /// The content; `None` if the disk has altered it.
    pub(crate) fn content(&self) -> Option<Bytes> {
        if self.sha256 != checksum(&self.compressed) {
            return None;
        }
        zstd::bulk::decompress(&self.compressed, BODY_BYTES_MAX).ok().map(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn typing_and_presence_alone_are_not_worth_a_copy() {
        let edus = |kinds: &[&str]| {
            let edus: Vec<_> = kinds.iter().map(|kind| json!({ "edu_type": kind })).collect();
            json!({ "edus": edus, "pdus": [] }).to_string()
        };
        assert!(!is_lasting(edus(&["m.typing", "m.presence"]).as_bytes()));
        assert!(is_lasting(edus(&["m.typing", "m.receipt"]).as_bytes()));
        assert!(is_lasting(edus(&[]).as_bytes()));
        assert!(is_lasting(br#"{"edus":[{"edu_type":"m.typing"}],"pdus":[{}]}"#));
    }

    #[test]
    fn a_copy_gives_back_what_was_sent_and_nothing_that_the_disk_altered() {
        let content = r#"{"pdus":[]}"#.repeat(1000);
        let copy = KeptCopy::of("/send/1", "X-Matrix", content.as_bytes()).unwrap();
        assert!(copy.compressed.len() < content.len() / 10);
        assert_eq!(copy.content().unwrap(), content);
        let mut altered = copy.clone();
        altered.compressed[20] ^= 1;
        assert_eq!(altered.content(), None);
    }
}
