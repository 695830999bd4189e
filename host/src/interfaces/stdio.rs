//! A guest's standard output and error, as lines of its execution's log.
//!
//! A panic's message arrives here, so the last line counts even without a line end.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

pub use super::output::Output;
use crate::execution::LogLevel;

/// How much a guest may write at once.
const PERMIT: usize = 64 * 1024;

/// One of the two streams of an [`Output`].
#[derive(Clone)]
pub struct Stream {
    output: Output,
    level: LogLevel,
}

impl Output {
    /// Standard output, recorded as `info`.
    #[must_use]
    pub fn stdout(&self) -> Stream {
        Stream { output: self.clone(), level: LogLevel::Info }
    }

    /// Standard error, recorded as `error`.
    #[must_use]
    pub fn stderr(&self) -> Stream {
        Stream { output: self.clone(), level: LogLevel::Error }
    }
}

impl IsTerminal for Stream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for Stream {
    async fn ready(&mut self) {
        self.output.make_room().await;
    }
}

impl OutputStream for Stream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let written = self.output.write(self.level, &bytes);
        written.map_err(|_| StreamError::trap("more was written than `check-write` allowed"))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(if self.output.is_full() { 0 } else { PERMIT })
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let written = self.output.write(self.level, bytes);
        Poll::Ready(written.map(|()| bytes.len()).map_err(|_| std::io::ErrorKind::WouldBlock.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
