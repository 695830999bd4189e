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

/// Paths that are named in one line.
const MOST_PATHS: usize = 5;

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
    /// The first paths that are in no folder.
    paths: Vec<String>,
    /// Whether there were more of them.
    more_paths: bool,
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

    /// Notes one where there is nobody to wait: [`Self::finish`] records it.
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

    /// Notes a path that is in no folder. All of them are told in one line at the end: a language's
    /// runtime may look for its modules in a dozen places.
    pub fn note_path(&self, path: &str) {
        let mut noted = self.lock();
        let path = format!("`/{}`", bounds::cut(path.trim_start_matches('/').to_owned(), bounds::FIELD_NAME));
        if noted.paths.contains(&path) {
            return;
        }
        if noted.paths.len() < MOST_PATHS {
            noted.paths.push(path);
        } else {
            noted.more_paths = true;
        }
    }

    /// Records what is left, at the end of the execution.
    pub async fn finish(&self) {
        let (paths, more) = {
            let mut noted = self.lock();
            (std::mem::take(&mut noted.paths), noted.more_paths)
        };
        if !paths.is_empty() {
            let (paths, plugin) = (paths.join(", "), &self.plugin);
            let others = if more { " and others" } else { "" };
            self.note(Kind::Files, "", || {
                format!(
                    "refused: {paths}{others}, in no folder that the plugin is granted; to grant \
                     one, add `[[plugins.{plugin}.files]]` with `path = \"…\"` and `as = \"…\"`, where the plugin \
                     looks for it"
                )
            });
        }
        self.flush().await;
    }

    async fn flush(&self) {
        let refused = std::mem::take(&mut self.lock().waiting);
        for line in refused {
            self.output.note(line).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use serde_json::Value;
    use uuid::Uuid;

    use super::*;
    use crate::execution::Progress;
    use crate::interfaces::{EnqueueError, EnqueueRequest, Port};
    use crate::limits::Limits;

    /// Keeps what is logged.
    #[derive(Default)]
    struct Log(Mutex<Vec<String>>);

    #[async_trait]
    impl Port for Log {
        async fn log(&self, lines: Vec<LogLine>) {
            self.0.lock().unwrap().extend(lines.into_iter().map(|line| line.message));
        }

        async fn progress(&self, _progress: Progress) {}

        async fn save_checkpoint(&self, _state: Value) -> Result<(), String> {
            Ok(())
        }

        fn cancelled(&self) -> bool {
            false
        }

        async fn enqueue(&self, _request: EnqueueRequest) -> Result<Uuid, EnqueueError> {
            Ok(Uuid::nil())
        }
    }

    fn refusals() -> (Arc<Log>, Refusals) {
        let log = Arc::new(Log::default());
        (log.clone(), Refusals::new("p", Output::new(log, Limits::default())))
    }

    #[tokio::test]
    async fn the_same_is_told_once_and_a_guest_that_tries_everything_fills_no_log() {
        let (log, refusals) = refusals();
        for _ in 0..3 {
            refusals.record(Kind::Http, "a", || "a was refused".to_owned()).await;
        }
        assert_eq!(*log.0.lock().unwrap(), ["a was refused"]);
        for number in 0..1000 {
            refusals.record(Kind::Http, &number.to_string(), || "refused".to_owned()).await;
        }
        refusals.finish().await;
        let lines = log.0.lock().unwrap().clone();
        assert_eq!(lines.len(), MOST_LINES + 1);
        assert!(lines[MOST_LINES].starts_with("further refusals"), "{lines:?}");
    }

    #[tokio::test]
    async fn paths_are_told_together_at_the_end() {
        let (log, refusals) = refusals();
        for path in ["a", "/a", "b", "c", "d", "e", "f"] {
            refusals.note_path(path);
        }
        assert!(log.0.lock().unwrap().is_empty());
        refusals.finish().await;
        let lines = log.0.lock().unwrap().clone();
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("refused: `/a`, `/b`, `/c`, `/d`, `/e` and others, in"), "{lines:?}");
        assert!(lines[0].contains("[[plugins.p.files]]"), "{lines:?}");
    }
}
