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

use crate::interfaces::activity::Entered;

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

/// What a server answers, up to a size and a time.
pub(super) struct ResponseBody {
    inner: Incoming,
    most: u64,
    left: u64,
    deadline: Instant,
    /// How long nothing may come.
    pause: Duration,
    timer: Pin<Box<Sleep>>,
    ended: bool,
    /// The request is one of those that are open until its body is dropped.
    _permit: OwnedSemaphorePermit,
    _entered: Entered,
}

impl ResponseBody {
    pub(super) fn new(
        inner: Incoming,
        most: u64,
        deadline: Instant,
        pause: Duration,
        held: (OwnedSemaphorePermit, Entered),
    ) -> Self {
        let timer = Box::pin(tokio::time::sleep_until(next(deadline, pause)));
        let (permit, entered) = held;
        Self {
            inner,
            most,
            left: most,
            deadline,
            pause,
            timer,
            ended: false,
            _permit: permit,
            _entered: entered,
        }
    }

    fn end(&mut self, error: Error) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.ended = true;
        Poll::Ready(Some(Err(error)))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        match Pin::new(&mut this.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let Some(left) = this.left.checked_sub(length(&frame)) else {
                    return this.end(Error::HttpResponseBodySize(Some(this.most)));
                };
                this.left = left;
                let next = next(this.deadline, this.pause);
                this.timer.as_mut().reset(next);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let error = if error.is_timeout() {
                    Error::HttpResponseTimeout
                } else {
                    Error::HttpResponseIncomplete
                };
                this.end(error)
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => match this.timer.as_mut().poll(context) {
                Poll::Ready(()) => this.end(Error::HttpResponseTimeout),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn next(deadline: Instant, pause: Duration) -> Instant {
    Instant::now().checked_add(pause).map_or(deadline, |next| next.min(deadline))
}

fn length(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| u64::try_from(data.len()).unwrap_or(u64::MAX))
}
