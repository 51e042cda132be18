//! Which relays take compressed deposits: those that have said so in an answer.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, Request, StatusCode};
use restante_federation::{Body, BoundedMap, ContentCoding, Peer, full};

/// Relays that are remembered; one that is forgotten gets its next deposit as it is, and says it again.
const RELAYS_MAX: usize = 1024;

/// What each relay has said. A stranger may write any URL beside a name, so what is said there is no word of whoever is
/// named so elsewhere.
pub(super) struct Codings {
    zstd: Mutex<BoundedMap<Peer, ()>>,
}

impl Default for Codings {
    fn default() -> Self {
        Self { zstd: Mutex::new(BoundedMap::new(RELAYS_MAX)) }
    }
}

impl Codings {
    /// Puts `content` into `request`, which is signed already, coded as `relay` takes it. How it is coded.
    pub(super) fn fill(
        &self,
        request: &mut Request<Body>,
        relay: &Peer,
        content: Bytes,
    ) -> ContentCoding {
        let coding = match self.lock().get(relay) {
            Some(()) => ContentCoding::Zstd,
            None => ContentCoding::Identity,
        };
        let (coded, says) = coding.encode(content);
        *request.body_mut() = full(coded);
        let Some(says) = says else { return ContentCoding::Identity };
        request.headers_mut().insert(CONTENT_ENCODING, says);
        coding
    }

    /// Hears the answer of `relay` to a deposit in `coding`. Whether the same is to be sent again as it is, because the
    /// relay does not take that coding any more: another version of it may run there since.
    pub(super) fn hear(
        &self,
        relay: &Peer,
        coding: ContentCoding,
        (status, headers): (StatusCode, &HeaderMap),
    ) -> bool {
        let is_in_vain = coding == ContentCoding::Zstd
            && matches!(status, StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE);
        if is_in_vain {
            self.lock().remove(relay);
        } else if status == StatusCode::OK && ContentCoding::wanted(headers) == ContentCoding::Zstd
        {
            self.lock().insert(relay.clone(), ());
        }
        is_in_vain
    }

    fn lock(&self) -> MutexGuard<'_, BoundedMap<Peer, ()>> {
        self.zstd.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use restante_federation::{collect_limited, empty};

    use super::*;

    fn relay() -> Peer {
        Peer::new("r.test".parse().unwrap(), None)
    }

    fn content() -> Bytes {
        Bytes::from("x".repeat(4096))
    }

    fn that_takes_zstd() -> HeaderMap {
        let mut headers = HeaderMap::new();
        ContentCoding::offer(&mut headers);
        headers
    }

    #[tokio::test]
    async fn a_deposit_is_compressed_once_the_relay_has_said_that_it_takes_that() {
        let codings = Codings::default();
        let mut request = Request::new(empty());
        assert_eq!(codings.fill(&mut request, &relay(), content()), ContentCoding::Identity);
        assert_eq!(request.headers().get(CONTENT_ENCODING), None);
        let takes = that_takes_zstd();
        assert!(!codings.hear(&relay(), ContentCoding::Identity, (StatusCode::OK, &takes)));

        let mut request = Request::new(empty());
        assert_eq!(codings.fill(&mut request, &relay(), content()), ContentCoding::Zstd);
        assert_eq!(request.headers()[CONTENT_ENCODING], HeaderValue::from_static("zstd"));
        let coded = collect_limited(request.into_body(), 4096).await.unwrap();
        let read = ContentCoding::Zstd.decode(coded, 4096, |_| Ok(())).unwrap();
        assert_eq!(read, content());
    }

    #[test]
    fn a_relay_that_takes_it_no_more_gets_the_same_as_it_is() {
        let codings = Codings::default();
        let takes = that_takes_zstd();
        codings.hear(&relay(), ContentCoding::Identity, (StatusCode::OK, &takes));
        for (status, is_sent_again) in [(200, false), (429, false), (503, false), (415, true)] {
            let answer = (StatusCode::from_u16(status).unwrap(), &HeaderMap::new());
            assert_eq!(
                codings.hear(&relay(), ContentCoding::Zstd, answer),
                is_sent_again,
                "{status}"
            );
        }
        let mut request = Request::new(empty());
        assert_eq!(codings.fill(&mut request, &relay(), content()), ContentCoding::Identity);
        // What went out as it was is not sent again.
        let bad = (StatusCode::BAD_REQUEST, &HeaderMap::new());
        assert!(!codings.hear(&relay(), ContentCoding::Identity, bad));
    }

    #[test]
    fn what_is_said_at_a_strangers_url_is_not_the_word_of_whoever_has_the_name() {
        let codings = Codings::default();
        let url = Some("https://evil.test".parse().unwrap());
        let borrowed = Peer::of_stranger(relay().name, url);
        let takes = that_takes_zstd();
        codings.hear(&borrowed, ContentCoding::Identity, (StatusCode::OK, &takes));
        let mut request = Request::new(empty());
        assert_eq!(codings.fill(&mut request, &relay(), content()), ContentCoding::Identity);
        assert_eq!(codings.fill(&mut request, &borrowed, content()), ContentCoding::Zstd);
    }
}
