//! A guest's standard output and error, as lines of its execution's log.
//!
//! A panic's message arrives here, so the last line counts even without a line end.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::execution::{LogLevel, LogLine};

/// A line longer than this many bytes is cut into several.
const LONGEST_LINE: usize = 16 * 1024;

/// Bytes of memory for lines that wait to be recorded; what a guest prints beyond them is
/// dropped, and the log says so.
const MOST_WAITING: usize = 1024 * 1024;

/// Collects what one execution prints.
#[derive(Clone, Default)]
pub struct Output(Arc<Mutex<Collected>>);

#[derive(Default)]
struct Collected {
    lines: Vec<LogLine>,
    bytes: usize,
    dropped_lines: usize,
    dropped_bytes: usize,
    partial: [Vec<u8>; 2],
}

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

    /// The whole lines that were printed since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<LogLine> {
        let mut collected = self.lock();
        collected.bytes = 0;
        std::mem::take(&mut collected.lines)
    }

    /// All that is left, at the end of the execution.
    #[must_use]
    pub fn finish(&self) -> Vec<LogLine> {
        {
            let mut collected = self.lock();
            for level in [LogLevel::Info, LogLevel::Error] {
                let rest = std::mem::take(collected.partial(level));
                if !rest.is_empty() {
                    collected.push(level, &rest);
                }
            }
            if collected.dropped_lines > 0 {
                let note = format!(
                    "{} more lines ({} bytes) were printed and not kept",
                    collected.dropped_lines, collected.dropped_bytes
                );
                collected.bytes = 0;
                collected.push(LogLevel::Warn, note.as_bytes());
            }
        }
        self.take()
    }

    fn lock(&self) -> MutexGuard<'_, Collected> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collected {
    fn partial(&mut self, level: LogLevel) -> &mut Vec<u8> {
        &mut self.partial[usize::from(level == LogLevel::Error)]
    }

    fn write(&mut self, level: LogLevel, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let partial = self.partial(level);
            partial.extend_from_slice(piece.strip_suffix(b"\n").unwrap_or(piece));
            if piece.ends_with(b"\n") || partial.len() >= LONGEST_LINE {
                let line = std::mem::take(partial);
                self.push(level, &line);
            }
        }
    }

    fn push(&mut self, level: LogLevel, line: &[u8]) {
        let message = String::from_utf8_lossy(line).trim_end_matches('\r').to_owned();
        // An empty line takes memory as well.
        let bytes = message.len() + size_of::<LogLine>();
        if self.bytes + bytes > MOST_WAITING {
            self.dropped_lines += 1;
            self.dropped_bytes += line.len();
            return;
        }
        self.bytes += bytes;
        self.lines.push(LogLine { at: crate::clock::now(), level, message, fields: serde_json::Map::new() });
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
    async fn ready(&mut self) {}
}

impl OutputStream for Stream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.output.lock().write(self.level, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 * 1024)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.output.lock().write(self.level, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(lines: &[LogLine]) -> Vec<(LogLevel, &str)> {
        lines.iter().map(|line| (line.level, line.message.as_str())).collect()
    }

    #[test]
    fn bytes_become_lines_and_the_last_one_needs_no_end() {
        let output = Output::default();
        output.lock().write(LogLevel::Info, b"one\ntw");
        output.lock().write(LogLevel::Error, b"oops\r\n");
        output.lock().write(LogLevel::Info, b"o\nthree");
        assert_eq!(
            messages(&output.take()),
            [(LogLevel::Info, "one"), (LogLevel::Error, "oops"), (LogLevel::Info, "two")]
        );
        assert_eq!(messages(&output.finish()), [(LogLevel::Info, "three")]);
        assert!(output.finish().is_empty());
    }

    #[test]
    fn what_is_printed_beyond_the_bound_is_dropped_and_said_so() {
        let output = Output::default();
        for _ in 0..MOST_WAITING / 1000 + 50 {
            output.lock().write(LogLevel::Info, &[[b'x'; 999].as_slice(), b"\n"].concat());
        }
        let lines = output.finish();
        assert!(lines.len() <= MOST_WAITING / 999 + 1, "{}", lines.len());
        assert!(lines.last().is_some_and(|line| line.message.contains("not kept")));
    }

    #[test]
    fn empty_lines_count_as_well() {
        let output = Output::default();
        let printed = 2 * MOST_WAITING;
        output.lock().write(LogLevel::Info, &vec![b'\n'; printed]);
        let lines = output.finish();
        assert!(lines.len() * size_of::<LogLine>() <= MOST_WAITING + size_of::<LogLine>(), "{}", lines.len());
        let note = format!("{} more lines (0 bytes) were printed and not kept", printed + 1 - lines.len());
        assert_eq!(lines.last().map(|line| line.message.as_str()), Some(note.as_str()));
    }
}
