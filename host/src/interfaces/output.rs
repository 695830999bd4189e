//! What an execution says of itself: the lines that it logs and prints, and how far its work is.
//!
//! However much it says, only so much is kept, and nothing is left out silently: a line in its
//! place says what was. Lines that are not kept cost the store nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Port;
use crate::execution::{LogLevel, LogLine, Progress};
use crate::limits::{Limits, Usage, grouped};

/// How long what is printed waits for more, so that there is a transaction for many lines.
const INTERVAL: Duration = Duration::from_secs(1);

/// Progress is not recorded more often.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// A line longer than this many bytes is cut into several.
const LONGEST_LINE: usize = 16 * 1024;

/// Bytes of memory for lines that wait to be recorded, from which on a guest waits with them.
const MANY_WAITING: usize = 256 * 1024;

/// What the host says of a guest's death: so many lines of its standard error, and of each so much.
const LAST_LINES: usize = 10;
const LAST_LINE: usize = 4 * 1024;

/// Collects what one execution says. Clones are the same one.
#[derive(Clone)]
pub struct Output(Arc<Shared>);

struct Shared {
    port: Arc<dyn Port>,
    /// Whoever writes to the store has it, so that all stays in its order.
    recording: tokio::sync::Mutex<()>,
    /// Something was printed, or there is progress.
    something: Notify,
    said: Mutex<Said>,
}

struct Said {
    limits: Limits,
    /// Lines that wait to be recorded.
    waiting: Vec<LogLine>,
    waiting_bytes: usize,
    kept: Amount,
    /// All that was said, kept or not.
    all: Amount,
    cut: Option<Cut>,
    /// The log says that it was cut.
    cut_is_told: bool,
    /// The beginnings of lines, of standard output and of standard error.
    partial: [Vec<u8>; 2],
    last_errors: VecDeque<String>,
    progress: Option<Progress>,
    progress_at: Option<Instant>,
}

#[derive(Clone, Copy, Default)]
struct Amount {
    lines: u64,
    bytes: u64,
}

/// Which limit has ended a log.
#[derive(Clone, Copy)]
enum Cut {
    Lines,
    Bytes,
}

/// A guest has printed more than it may before it waits.
#[derive(Debug)]
pub(super) struct TooFast;

impl Output {
    /// Collects for an execution with these limits, and records by `port`.
    #[must_use]
    pub fn new(port: Arc<dyn Port>, limits: Limits) -> Self {
        let said = Said {
            limits,
            waiting: Vec::new(),
            waiting_bytes: 0,
            kept: Amount::default(),
            all: Amount::default(),
            cut: None,
            cut_is_told: false,
            partial: [const { Vec::new() }; 2],
            last_errors: VecDeque::new(),
            progress: None,
            progress_at: None,
        };
        let (recording, something) = (tokio::sync::Mutex::default(), Notify::new());
        Self(Arc::new(Shared { port, recording, something, said: Mutex::new(said) }))
    }

    /// Counts a line of so many bytes that is about to be logged: whether it is kept.
    #[must_use]
    pub fn admits(&self, bytes: u64) -> bool {
        let admitted = self.said().admit(bytes);
        if !admitted {
            self.0.something.notify_one();
        }
        admitted
    }

    /// Records a line that is kept, after what was printed before it.
    pub async fn log(&self, line: LogLine) {
        self.said().last_errors.clear();
        self.record(Some(line)).await;
    }

    /// Records what the host says of the execution, after what was printed before it.
    pub async fn note(&self, line: LogLine) {
        self.record(Some(line)).await;
    }

    /// Records how far the work is: at once, or with what is said after it.
    pub async fn progress(&self, progress: Progress) {
        {
            let mut said = self.said();
            if said.progress_at.is_some_and(|at| at.elapsed() < PROGRESS_INTERVAL) {
                said.progress = Some(progress);
                self.0.something.notify_one();
                return;
            }
            (said.progress, said.progress_at) = (None, Some(Instant::now()));
        }
        let _turn = self.0.recording.lock().await;
        self.0.port.progress(progress).await;
    }

    /// Records from time to time what was said, until `ended`. To be polled beside the guest, and
    /// after it: what is being written is written to its end.
    pub async fn keep_recording(&self, ended: &Notify) {
        loop {
            tokio::select! {
                biased;
                () = ended.notified() => return,
                () = self.0.something.notified() => {}
            }
            tokio::select! {
                biased;
                () = ended.notified() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            self.record(None).await;
            self.record_progress().await;
        }
    }

    /// Nothing more will be said.
    pub fn close(&self) {
        let mut said = self.said();
        for level in [LogLevel::Info, LogLevel::Error] {
            let rest = std::mem::take(said.partial(level));
            if !rest.is_empty() {
                said.print(level, &rest);
            }
        }
        if let Some(cut) = said.cut {
            let line = said.last_mark(cut);
            said.wait(line);
            said.cut_is_told = true;
        }
    }

    /// Records all that is left.
    pub async fn finish(&self) {
        self.record(None).await;
        self.record_progress().await;
    }

    /// The end of what was printed on standard error since the last line was logged: where the
    /// languages' runtimes explain a panic.
    #[must_use]
    pub fn last_words(&self) -> String {
        self.said().last_errors.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// Writes down how much was said.
    pub fn count(&self, usage: &mut Usage) {
        let all = self.said().all;
        (usage.log_lines, usage.log_bytes) = (all.lines, all.bytes);
    }

    /// Takes what a guest prints.
    ///
    /// # Errors
    /// Where it does not wait although it should.
    pub(super) fn write(&self, level: LogLevel, bytes: &[u8]) -> Result<(), TooFast> {
        let mut said = self.said();
        if said.waiting_bytes >= 2 * MANY_WAITING {
            return Err(TooFast);
        }
        said.write(level, bytes);
        drop(said);
        self.0.something.notify_one();
        Ok(())
    }

    /// True where a guest should wait before it prints more.
    pub(super) fn is_full(&self) -> bool {
        self.said().waiting_bytes >= MANY_WAITING
    }

    /// Waits until a guest may print more.
    pub(super) async fn make_room(&self) {
        if self.is_full() {
            self.record(None).await;
        }
    }

    async fn record(&self, line: Option<LogLine>) {
        let _turn = self.0.recording.lock().await;
        let mut lines = self.said().take();
        lines.extend(line);
        if !lines.is_empty() {
            self.0.port.log(lines).await;
        }
    }

    async fn record_progress(&self) {
        let _turn = self.0.recording.lock().await;
        let progress = {
            let mut said = self.said();
            let Some(progress) = said.progress.take() else { return };
            said.progress_at = Some(Instant::now());
            progress
        };
        self.0.port.progress(progress).await;
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        // No code that can panic runs under the lock.
        self.0.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Said {
    /// Counts a line. Once one was not kept, none is.
    fn admit(&mut self, bytes: u64) -> bool {
        self.all.add(bytes);
        if self.cut.is_some() {
            return false;
        }
        if self.kept.lines >= self.limits.log_lines {
            self.cut = Some(Cut::Lines);
        } else if self.kept.bytes.saturating_add(bytes) > self.limits.log_bytes {
            self.cut = Some(Cut::Bytes);
        } else {
            self.kept.add(bytes);
        }
        self.cut.is_none()
    }

    fn partial(&mut self, level: LogLevel) -> &mut Vec<u8> {
        &mut self.partial[usize::from(level == LogLevel::Error)]
    }

    fn write(&mut self, level: LogLevel, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let partial = self.partial(level);
            partial.extend_from_slice(piece.strip_suffix(b"\n").unwrap_or(piece));
            if piece.ends_with(b"\n") || partial.len() >= LONGEST_LINE {
                let line = std::mem::take(partial);
                self.print(level, &line);
            }
        }
    }

    fn print(&mut self, level: LogLevel, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let kept = self.admit(line.len() as u64);
        if !kept && level != LogLevel::Error {
            return;
        }
        let message = String::from_utf8_lossy(line).into_owned();
        if level == LogLevel::Error {
            self.remember(&message);
        }
        if kept {
            self.wait(LogLine { at: crate::clock::now(), level, message, fields: Map::new() });
        }
    }

    /// Keeps the end of standard error, whether the log has room for it or not.
    fn remember(&mut self, message: &str) {
        // Rust's hint on a variable that a guest does not have.
        if message.trim().is_empty() || message.starts_with("note: run with `RUST_BACKTRACE") {
            return;
        }
        if self.last_errors.len() == LAST_LINES {
            self.last_errors.pop_front();
        }
        self.last_errors.push_back(message[..message.floor_char_boundary(LAST_LINE)].to_owned());
    }

    fn wait(&mut self, line: LogLine) {
        // An empty line takes memory as well.
        self.waiting_bytes += line.message.len() + size_of::<LogLine>();
        self.waiting.push(line);
    }

    fn take(&mut self) -> Vec<LogLine> {
        self.waiting_bytes = 0;
        let mut lines = std::mem::take(&mut self.waiting);
        if let Some(cut) = self.cut
            && !std::mem::replace(&mut self.cut_is_told, true)
        {
            lines.push(mark(format!("… no more lines are kept: {}", self.limit(cut)), Map::new()));
        }
        lines
    }

    /// What was not kept.
    fn last_mark(&self, cut: Cut) -> LogLine {
        let lines = self.all.lines - self.kept.lines;
        let bytes = self.all.bytes - self.kept.bytes;
        let (noun, verb) = if lines == 1 { ("line", "was") } else { ("lines", "were") };
        let message = format!(
            "… {} more {noun} ({}) {verb} not kept: {}",
            grouped(lines),
            bytesize::ByteSize::b(bytes),
            self.limit(cut)
        );
        let fields = [("lines_not_kept", lines), ("bytes_not_kept", bytes)];
        mark(message, fields.map(|(name, count)| (name.to_owned(), Value::from(count))).into_iter().collect())
    }

    fn limit(&self, cut: Cut) -> String {
        match cut {
            Cut::Lines => {
                format!("`limits.log_lines` of the plugin is {}", grouped(self.limits.log_lines))
            }
            Cut::Bytes => {
                let bytes = bytesize::ByteSize::b(self.limits.log_bytes);
                format!("`limits.log_bytes` of the plugin is {bytes}")
            }
        }
    }
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.lines += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// A line of the host's own.
fn mark(message: String, fields: Map<String, Value>) -> LogLine {
    LogLine { at: crate::clock::now(), level: LogLevel::Warn, message, fields }
}

#[cfg(test)]
mod tests;
