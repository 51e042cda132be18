//! Bodies: streamed, or read whole up to a limit.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use tokio::time::timeout;

/// An error of a body, whatever made it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request or response body, streamed.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Room made for a body before its first byte; most transactions fit.
const FIRST_BUFFER_BYTES: usize = 16 * 1024;

/// Why a body was not read whole.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Longer than the limit.
    #[error("the body is longer than {max} bytes")]
    TooLarge {
        /// The limit.
        max: usize,
    },
    /// The connection broke.
    #[error("the body broke off")]
    Broken(#[source] BoxError),
}

/// A body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// No body.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Reads a body of at most `max` bytes; refuses by Content-Length before reading anything where it can.
pub async fn collect_limited<B>(body: B, max: usize) -> Result<Bytes, BodyError>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    collect(body, max, None).await
}

/// The same, unless nothing comes for as long as `stall`: such a connection is dead, however long the whole may take.
pub async fn collect_steadily<B>(body: B, max: usize, stall: Duration) -> Result<Bytes, BodyError>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    collect(body, max, Some(stall)).await
}

async fn collect<B>(body: B, max: usize, stall: Option<Duration>) -> Result<Bytes, BodyError>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > max {
        return Err(BodyError::TooLarge { max });
    }
    let mut body = std::pin::pin!(body);
    // What a peer announces but has not sent is not worth memory yet.
    let mut whole = BytesMut::with_capacity(announced.min(FIRST_BUFFER_BYTES));
    loop {
        let next = match stall {
            Some(stall) => timeout(stall, body.frame()).await.map_err(|_| {
                BodyError::Broken(format!("nothing came for {} s", stall.as_secs()).into())
            })?,
            None => body.frame().await,
        };
        let Some(frame) = next else { return Ok(whole.freeze()) };
        let frame = frame.map_err(|error| BodyError::Broken(error.into()))?;
        // Frames that are no data are trailers, which nothing here uses.
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > max - whole.len() {
            return Err(BodyError::TooLarge { max });
        }
        whole.extend_from_slice(&data);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    fn chunks(chunks: &[&'static str]) -> Body {
        let frames: Vec<_> = chunks
            .iter()
            .map(|chunk| Ok::<_, BoxError>(Frame::data(Bytes::from_static(chunk.as_bytes()))))
            .collect();
        StreamBody::new(stream::iter(frames)).boxed_unsync()
    }

    #[tokio::test]
    async fn a_body_within_the_limit_is_read_whole() {
        assert_eq!(collect_limited(chunks(&["ab", "cd"]), 4).await.unwrap(), "abcd");
        assert_eq!(collect_limited(full("abcd"), 4).await.unwrap(), "abcd");
        assert_eq!(collect_limited(empty(), 0).await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_longer_body_is_refused_whether_or_not_it_says_its_length() {
        let unannounced = collect_limited(chunks(&["ab", "cde"]), 4).await;
        assert!(matches!(unannounced, Err(BodyError::TooLarge { max: 4 })));
        let announced = collect_limited(full("abcde"), 4).await;
        assert!(matches!(announced, Err(BodyError::TooLarge { max: 4 })));
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_told_from_one_that_is_too_long() {
        let body = StreamBody::new(stream::iter([Err::<Frame<Bytes>, BoxError>("cut".into())]));
        assert!(matches!(collect_limited(body, 4).await, Err(BodyError::Broken(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_given_up_and_one_that_is_slow_is_not() {
        let second = Duration::from_secs(1);
        let slowly = |pauses: [u64; 3]| {
            let frames = stream::unfold(0, move |number| async move {
                tokio::time::sleep(second * u32::try_from(*pauses.get(number)?).ok()?).await;
                let frame = Frame::data(Bytes::from_static(b"12"));
                Some((Ok::<_, BoxError>(frame), number + 1))
            });
            StreamBody::new(frames).boxed_unsync()
        };
        let steady = collect_steadily(slowly([9, 9, 9]), 10, 10 * second).await;
        assert_eq!(steady.unwrap(), "121212");
        let stalled = collect_steadily(slowly([1, 11, 1]), 10, 10 * second).await;
        assert!(matches!(stalled, Err(BodyError::Broken(_))), "{stalled:?}");
        assert!(collect_limited(slowly([1, 1000, 1]), 10).await.is_ok());
    }
}
