//! What a guest was refused: each once in the log of its execution, with the line of the
//! configuration that would grant it.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Map, json};

use super::output::Output;
use crate::bounds;
use crate::execution::{LogLevel, LogLine};

/// A guest that tries everything shall not fill its log with what it was refused.
const MOST_LINES: usize = 32;

/// The refusals of one execution.
pub struct Refusals {
    plugin: String,
    output: Output,
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    seen: BTreeSet<(Kind, String)>,
    /// Noted where nothing could be recorded.
    waiting: Vec<LogLine>,
}

/// What was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A request, or a part of it.
    Http,
    /// A secret in a header.
    Secret,
    /// A path.
    Files,
    /// A socket or the address of a name.
    Sockets,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Secret => "secrets",
            Self::Files => "files",
            Self::Sockets => "sockets",
        }
    }
}

impl Refusals {
    /// None yet, of an execution of this plugin.
    #[must_use]
    pub fn new(plugin: &str, output: Output) -> Self {
        Self { plugin: plugin.to_owned(), output, noted: Mutex::default() }
    }

    /// The plugin's name, for the line that would grant something.
    #[must_use]
    pub fn plugin(&self) -> &str {
        &self.plugin
    }

    /// Records a refusal, unless the same was recorded before.
    pub async fn record(&self, kind: Kind, target: &str, message: impl FnOnce() -> String) {
        self.note(kind, target, message);
        self.flush().await;
    }

    /// Notes one where there is nobody to wait: [`Self::flush`] records it.
    pub fn note(&self, kind: Kind, target: &str, message: impl FnOnce() -> String) {
        let mut noted = self.lock();
        let target = bounds::cut(target.to_owned(), bounds::FIELD_NAME);
        if noted.seen.len() > MOST_LINES || !noted.seen.insert((kind, target)) {
            return;
        }
        let message = if noted.seen.len() > MOST_LINES {
            "further refusals of this execution are not recorded".to_owned()
        } else {
            bounds::cut(message(), bounds::MESSAGE)
        };
        let fields = Map::from_iter([("refused".to_owned(), json!(kind.as_str()))]);
        noted.waiting.push(LogLine { at: crate::clock::now(), level: LogLevel::Warn, message, fields });
    }

    /// Records what was noted.
    pub async fn flush(&self) {
        let refused = std::mem::take(&mut self.lock().waiting);
        for line in refused {
            self.output.log(line).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
