//! A copy of what the homeserver sent: with its signature it can be sent or left again at any time.

use std::borrow::Cow;

use bytes::Bytes;
use restante_relay_api::Capsule;
use restante_relay_api::limits::{BODY_BYTES_MAX, CAPSULE_BYTES_MAX};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::store::checksum::checksum_of;

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
    /// The capsule that goes with it, compressed.
    pub(crate) capsule: Option<Vec<u8>>,
    /// SHA-256 of what is compressed.
    pub(crate) sha256: [u8; 32],
}

impl KeptCopy {
    /// Of a request with this content, and the canonical capsule that goes with it; `None` if it can't be compressed, for want of
    /// memory.
    pub(crate) fn of(
        (target, authorization): (&str, &str),
        content: &[u8],
        capsule: Option<&Bytes>,
    ) -> Option<Self> {
        let compressed = zstd::bulk::compress(content, LEVEL).ok()?;
        let capsule = capsule.map(|capsule| zstd::bulk::compress(capsule, LEVEL)).transpose();
        let capsule = capsule.ok()?;
        Some(Self {
            target: target.to_owned(),
            authorization: authorization.to_owned(),
            sha256: checksum_of([&compressed, capsule.as_deref().unwrap_or_default()]),
            compressed,
            capsule,
        })
    }

    /// The content; `None` if the disk has altered it.
    pub(crate) fn content(&self) -> Option<Bytes> {
        self.is_whole().then(|| unpacked(&self.compressed, BODY_BYTES_MAX)).flatten()
    }

    /// The capsule; `None` if there is none, or the disk has altered it.
    pub(crate) fn capsule(&self) -> Option<Capsule> {
        let capsule = self.capsule.as_ref().filter(|_| self.is_whole())?;
        Capsule::parse(&unpacked(capsule, CAPSULE_BYTES_MAX)?).ok()
    }

    fn is_whole(&self) -> bool {
        self.sha256 == checksum_of([&self.compressed, self.capsule.as_deref().unwrap_or_default()])
    }
}

fn unpacked(compressed: &[u8], bytes_max: usize) -> Option<Bytes> {
    zstd::bulk::decompress(compressed, bytes_max).ok().map(Into::into)
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
        let capsule = Bytes::from_static(br#"{"keys":{},"pdus":[{}]}"#);
        let copy = KeptCopy::of(("/send/1", "X-Matrix"), content.as_bytes(), Some(&capsule));
        let copy = copy.unwrap();
        assert!(copy.compressed.len() < content.len() / 10);
        assert_eq!(copy.content().unwrap(), content);
        assert_eq!(*copy.capsule().unwrap().canonical(), capsule);
        let mut altered = copy.clone();
        altered.compressed[20] ^= 1;
        assert_eq!(altered.content(), None);
        let mut altered = copy.clone();
        altered.capsule.as_mut().unwrap()[10] ^= 1;
        assert!(altered.content().is_none() && altered.capsule().is_none());
    }
}
