//! Bodies within their bounds.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};
use wasmtime_wasi_http::{Error, WasiBody};

use super::mask::Mask;
use crate::interfaces::activity::Entered;
use crate::interfaces::refusals::{Kind, Refusals};

/// What a guest sends, up to a size.
pub(super) struct RequestBody {
    inner: WasiBody,
    most: u64,
    left: u64,
    /// hyper tells of the failure of a body in its own words.
    too_large: Arc<AtomicBool>,
}

impl RequestBody {
    pub(super) fn new(inner: WasiBody, most: u64, too_large: Arc<AtomicBool>) -> Self {
        Self { inner, most, left: most, too_large }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        let Poll::Ready(Some(Ok(frame))) = &polled else { return polled };
        let Some(left) = self.left.checked_sub(length(frame)) else {
            self.too_large.store(true, Ordering::Relaxed);
            return Poll::Ready(Some(Err(Error::HttpRequestBodySize(Some(self.most)))));
        };
        self.left = left;
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// What a server answers, up to a size and a time, with the request's secrets masked.
pub(super) struct ResponseBody {
    inner: Incoming,
    left: u64,
    bounds: ResponseBounds,
    timer: Pin<Box<Sleep>>,
    mask: Mask,
    /// What ends the body, after what the mask has held.
    last: Option<Option<Frame<Bytes>>>,
    /// The request is one of those that are open until its body is dropped.
    _permit: OwnedSemaphorePermit,
    _entered: Entered,
}

/// The bounds of an answer.
pub(super) struct ResponseBounds {
    /// Bytes.
    pub(super) most: u64,
    /// When it has to have ended.
    pub(super) deadline: Instant,
    /// How long nothing may come.
    pub(super) pause: Duration,
    /// Where it is noted that there was more.
    pub(super) refusals: Arc<Refusals>,
}

impl ResponseBounds {
    fn next(&self) -> Instant {
        Instant::now().checked_add(self.pause).map_or(self.deadline, |next| next.min(self.deadline))
    }
}

type Polled = Poll<Option<Result<Frame<Bytes>, Error>>>;

impl ResponseBody {
    pub(super) fn new(
        inner: Incoming,
        bounds: ResponseBounds,
        mask: Mask,
        held: (OwnedSemaphorePermit, Entered),
    ) -> Self {
        let timer = Box::pin(tokio::time::sleep_until(bounds.next()));
        let (permit, entered) = held;
        let left = bounds.most;
        Self { inner, left, bounds, timer, mask, last: None, _permit: permit, _entered: entered }
    }

    fn fail(&mut self, error: Error) -> Polled {
        self.last = Some(None);
        Poll::Ready(Some(Err(error)))
    }

    fn too_large(&mut self) -> Polled {
        let (most, refusals) = (self.bounds.most, &self.bounds.refusals);
        refusals.note(Kind::Http, "max_response_bytes", || {
            format!(
                "an answer was cut off, because its body has more than {most} bytes: `max_response_bytes` in \
                 [plugins.{}.http]",
                refusals.plugin()
            )
        });
        self.fail(Error::HttpResponseBodySize(Some(most)))
    }

    /// What the mask has held, then the end.
    fn finish(&mut self) -> Polled {
        match self.mask.rest() {
            Some(rest) => Poll::Ready(Some(Ok(Frame::data(rest)))),
            None => Poll::Ready(self.last.as_mut().and_then(Option::take).map(Ok)),
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        let this = &mut *self;
        while this.last.is_none() {
            match Pin::new(&mut this.inner).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Some(left) = this.left.checked_sub(length(&frame)) else { return this.too_large() };
                    this.left = left;
                    let next = this.bounds.next();
                    this.timer.as_mut().reset(next);
                    let data = match frame.into_data() {
                        Ok(data) => this.mask.piece(data),
                        Err(trailers) => {
                            this.last = Some(Some(trailers));
                            break;
                        }
                    };
                    if !data.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    let timed_out = error.is_timeout();
                    let error =
                        if timed_out { Error::HttpResponseTimeout } else { Error::HttpResponseIncomplete };
                    return this.fail(error);
                }
                Poll::Ready(None) => this.last = Some(None),
                Poll::Pending => {
                    return match this.timer.as_mut().poll(context) {
                        Poll::Ready(()) => this.fail(Error::HttpResponseTimeout),
                        Poll::Pending => Poll::Pending,
                    };
                }
            }
        }
        this.finish()
    }

    fn is_end_stream(&self) -> bool {
        !self.mask.holds() && self.last.as_ref().map_or(self.inner.is_end_stream(), Option::is_none)
    }
}

fn length(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| u64::try_from(data.len()).unwrap_or(u64::MAX))
}
