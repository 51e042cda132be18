//! Cuts peers that stop in the middle: a request body that does not come on, an answer that is not taken.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::body::BoxError;

/// The longest pause within a body, in either direction.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The longest time for a whole request body: bytes that drip hold memory as well. 16 MiB take this at 56 KB/s.
const BODY_TIME_MAX: Duration = Duration::from_mins(5);

/// Measures one pause.
struct Pause(Option<Pin<Box<Sleep>>>);

impl Pause {
    fn end(&mut self) {
        self.0 = None;
    }

    /// Ready when the pause is too long.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep(PAUSE_MAX)));
        sleep.as_mut().poll(context)
    }
}

/// A request body whose sender must not pause for too long, nor drip.
pub(super) struct TimedBody<B = Incoming> {
    body: B,
    pause: Pause,
    begun: Option<Instant>,
}

impl<B> TimedBody<B> {
    pub(super) fn new(body: B) -> Self {
        Self { body, pause: Pause(None), begun: None }
    }

    fn is_late(&mut self) -> bool {
        self.begun.get_or_insert_with(Instant::now).elapsed() > BODY_TIME_MAX
    }
}

impl<B> Body for TimedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let late = self.is_late();
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.pause.end();
            if late && frame.is_some() {
                return Poll::Ready(Some(Err("the request body takes too long".into())));
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        ready!(self.pause.poll(context));
        Poll::Ready(Some(Err("the request body does not come on".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream whose reader must not pause for too long while there is something to write.
pub(super) struct TimedWriter<S> {
    stream: S,
    pause: Pause,
}

impl<S> TimedWriter<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, pause: Pause(None) }
    }

    fn timed<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.pause.end();
            return written;
        }
        ready!(self.pause.poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedWriter<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedWriter<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.timed(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.timed(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.timed(context, shut)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.timed(context, written)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_body_that_drips_is_cut() {
        let dripping = stream::unfold((), async |()| {
            sleep(PAUSE_MAX / 2).await;
            Some((Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"x"))), ()))
        });
        let begun = Instant::now();
        let body = TimedBody::new(StreamBody::new(Box::pin(dripping)));
        assert!(body.collect().await.is_err());
        assert!(begun.elapsed() < BODY_TIME_MAX + PAUSE_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_is_cut() {
        let (near, mut far) = duplex(4);
        let mut writer = TimedWriter::new(near);
        writer.write_all(b"abcd").await.unwrap();
        let mut taken = [0; 4];
        far.read_exact(&mut taken).await.unwrap();
        let error = writer.write_all(b"efghi").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
