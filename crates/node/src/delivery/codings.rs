//! Which relays take compressed deposits: those that have said so in an answer.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::{Request, StatusCode};
use restante_federation::{
    Answer, AskError, Body, BoundedMap, ContentCoding, ExchangeError, Peer, full,
};
use tokio::time::Instant;

/// Relays that are remembered; one that is forgotten gets its next deposit as it is, and says it again.
const RELAYS_MAX: usize = 1024;

/// How long a relay gets its mail as it is after it was sent compressed mail in vain, whatever it says: a proxy before it may
/// take none, or lose what says how it is coded.
const RESPITE: Duration = Duration::from_secs(3600);

/// What each relay has said. A stranger may write any URL beside a name, so what is said there is no word of whoever is
/// named so elsewhere.
pub(super) struct Codings {
    relays: Mutex<BoundedMap<Peer, Takes>>,
}

/// What a relay takes.
#[derive(Debug, Clone, Copy)]
enum Takes {
    Zstd,
    /// Until then nothing but the content as it is.
    Plain(Instant),
}

/// What is to be done after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing.
    Done,
    /// The same is to be sent again, as it is.
    SendAsItIs,
}

impl Default for Codings {
    fn default() -> Self {
        Self { relays: Mutex::new(BoundedMap::new(RELAYS_MAX)) }
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
            Some(Takes::Zstd) => ContentCoding::Zstd,
            Some(Takes::Plain(_)) | None => ContentCoding::Identity,
        };
        let (coded, says) = coding.encode(content);
        *request.body_mut() = full(coded);
        let Some(says) = says else { return ContentCoding::Identity };
        request.headers_mut().insert(CONTENT_ENCODING, says);
        coding
    }

    /// Hears what came of a deposit in `coding` at `relay`.
    pub(super) fn hear(
        &self,
        relay: &Peer,
        coding: ContentCoding,
        answer: &Result<Answer, AskError>,
        now: Instant,
    ) -> Next {
        let mut relays = self.lock();
        if coding == ContentCoding::Zstd && is_perhaps_about_coding(answer) {
            relays.insert(relay.clone(), Takes::Plain(now + RESPITE));
            return Next::SendAsItIs;
        }
        let has_respite = matches!(relays.get(relay), Some(Takes::Plain(until)) if now < *until);
        if !has_respite && answer.as_ref().is_ok_and(offers_zstd) {
            relays.insert(relay.clone(), Takes::Zstd);
        }
        Next::Done
    }

    fn lock(&self) -> MutexGuard<'_, BoundedMap<Peer, Takes>> {
        self.relays.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn offers_zstd(answer: &Answer) -> bool {
    answer.status == StatusCode::OK && ContentCoding::wanted(&answer.headers) == ContentCoding::Zstd
}

/// Whether the deposit may have failed for how it was coded: unless a relay says something else about it, or there is nobody
/// to say anything.
fn is_perhaps_about_coding(answer: &Result<Answer, AskError>) -> bool {
    match answer {
        Ok(answer) => match answer.status.as_u16() {
            401 | 403 | 413 | 429 => answer.refusal().errcode.is_none(),
            400..=499 | 501 => true,
            _ => false,
        },
        Err(AskError::Exchange(error)) => matches!(error, ExchangeError::Broken { .. }),
        Err(AskError::Body(_) | AskError::Slow) => false,
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use restante_federation::{collect_limited, empty};

    use super::*;

    fn relay() -> Peer {
        Peer::new("r.test".parse().unwrap(), None)
    }

    fn content() -> Bytes {
        Bytes::from("x".repeat(900) + &"y".repeat(900))
    }

    fn says(status: u16, body: &'static str) -> Result<Answer, AskError> {
        let status = StatusCode::from_u16(status).unwrap();
        Ok(Answer { status, headers: HeaderMap::new(), body: Bytes::from_static(body.as_bytes()) })
    }

    /// It took a deposit, and takes zstd.
    fn offers() -> Result<Answer, AskError> {
        let mut answer = says(200, "{}").unwrap();
        ContentCoding::offer(&mut answer.headers);
        Ok(answer)
    }

    /// How the next deposit goes there.
    fn next(codings: &Codings, relay: &Peer) -> ContentCoding {
        codings.fill(&mut Request::new(empty()), relay, content())
    }

    fn heard(codings: &Codings, answer: &Result<Answer, AskError>, now: Instant) -> Next {
        codings.hear(&relay(), next(codings, &relay()), answer, now)
    }

    #[tokio::test]
    async fn a_deposit_is_compressed_once_the_relay_has_said_that_it_takes_that() {
        let codings = Codings::default();
        let mut request = Request::new(empty());
        assert_eq!(codings.fill(&mut request, &relay(), content()), ContentCoding::Identity);
        assert_eq!(request.headers().get(CONTENT_ENCODING), None);
        assert_eq!(heard(&codings, &offers(), Instant::now()), Next::Done);

        let mut request = Request::new(empty());
        assert_eq!(codings.fill(&mut request, &relay(), content()), ContentCoding::Zstd);
        assert_eq!(request.headers()[CONTENT_ENCODING], HeaderValue::from_static("zstd"));
        let coded = collect_limited(request.into_body(), 4096).await.unwrap();
        let read = ContentCoding::Zstd.decode(coded, 4096, |_| Ok(())).unwrap();
        assert_eq!(read, content());
    }

    #[test]
    fn what_may_have_failed_for_its_coding_is_sent_again_as_it_is() {
        let broken = || {
            let source = "reset".into();
            Err(ExchangeError::Broken { server: relay().name, source }.into())
        };
        let from_relay = r#"{"errcode":"M_FORBIDDEN","error":"no"}"#;
        for (answer, then) in [
            (says(200, "{}"), Next::Done),
            (says(403, from_relay), Next::Done),
            (says(413, from_relay), Next::Done),
            (says(429, from_relay), Next::Done),
            (says(502, "<html>"), Next::Done),
            (Err(AskError::Slow), Next::Done),
            (says(400, r#"{"errcode":"M_NOT_JSON"}"#), Next::SendAsItIs),
            (says(403, "<html>a firewall</html>"), Next::SendAsItIs),
            (says(406, ""), Next::SendAsItIs),
            (says(415, ""), Next::SendAsItIs),
            (says(501, ""), Next::SendAsItIs),
            (broken(), Next::SendAsItIs),
        ] {
            let (codings, now) = (Codings::default(), Instant::now());
            heard(&codings, &offers(), now);
            assert_eq!(heard(&codings, &answer, now), then, "{answer:?}");
            let coding = next(&codings, &relay());
            assert_eq!(coding == ContentCoding::Identity, then == Next::SendAsItIs, "{answer:?}");
        }
    }

    #[test]
    fn a_relay_behind_a_proxy_that_takes_none_is_believed_again_after_an_hour_alone() {
        let (codings, now) = (Codings::default(), Instant::now());
        heard(&codings, &offers(), now);
        assert_eq!(heard(&codings, &says(415, ""), now), Next::SendAsItIs);
        // What went out as it was is not sent again, and the relay itself goes on offering.
        assert_eq!(heard(&codings, &says(415, ""), now), Next::Done);
        heard(&codings, &offers(), now + RESPITE - Duration::from_millis(1));
        assert_eq!(next(&codings, &relay()), ContentCoding::Identity);
        heard(&codings, &offers(), now + RESPITE);
        assert_eq!(next(&codings, &relay()), ContentCoding::Zstd);
    }

    #[test]
    fn what_is_said_at_a_strangers_url_is_not_the_word_of_whoever_has_the_name() {
        let codings = Codings::default();
        let url = Some("https://evil.test".parse().unwrap());
        let borrowed = Peer::of_stranger(relay().name, url);
        codings.hear(&borrowed, ContentCoding::Identity, &offers(), Instant::now());
        assert_eq!(next(&codings, &relay()), ContentCoding::Identity);
        assert_eq!(next(&codings, &borrowed), ContentCoding::Zstd);
    }
}
