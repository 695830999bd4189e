//! The `context` interface: log, progress, checkpoint, cancellation.

use std::sync::Arc;

use serde_json::{Map, Value};
use wasmtime::Result;
use wasmtime::component::{HasData, Linker};

use super::Port;
use super::activity::{Activity, What};
use super::bindings::innkeeper::plugin::{context, types};
use super::output::Output;
use crate::bounds;
use crate::execution::{LogLevel, LogLine, Progress};

/// What the interface needs of one execution.
pub struct ContextView<'a> {
    /// The host's side.
    pub port: &'a Arc<dyn Port>,
    /// Takes what the execution says of itself.
    pub output: &'a Output,
    /// What the execution is doing.
    pub activity: &'a Activity,
}

struct View;

impl HasData for View {
    type Data<'a> = ContextView<'a>;
}

/// Adds the interface, and the types that all share, to a linker.
///
/// # Errors
/// Where the linker has it already.
pub fn add_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    get: fn(&mut T) -> ContextView<'_>,
) -> Result<()> {
    types::add_to_linker::<T, View>(linker, get)?;
    context::add_to_linker::<T, View>(linker, get)
}

impl types::Host for ContextView<'_> {}

impl context::Host for ContextView<'_> {
    async fn log(
        &mut self,
        level: context::Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> Result<()> {
        if !self.output.admits(size(&message, &fields)) {
            return Ok(());
        }
        let message = bounds::cut(message, bounds::MESSAGE);
        let fields = to_fields(fields);
        let _entered = self.activity.enter(What::Host("context.log"));
        self.output.log(LogLine { at: crate::clock::now(), level: log_level(level), message, fields }).await;
        Ok(())
    }

    async fn progress(&mut self, done: u64, total: Option<u64>, message: Option<String>) -> Result<()> {
        let message = message.map(|message| bounds::cut(message, bounds::MESSAGE));
        let _entered = self.activity.enter(What::Host("context.progress"));
        self.output.progress(Progress { done, total, message }).await;
        Ok(())
    }

    async fn save_checkpoint(&mut self, state: String) -> Result<Result<(), String>> {
        let _entered = self.activity.enter(What::Host("context.save-checkpoint"));
        match bounds::document(&state) {
            Ok(state) => Ok(self.port.save_checkpoint(state).await),
            Err(why) => Ok(Err(format!("the checkpoint was not recorded: it {why}"))),
        }
    }

    async fn cancelled(&mut self) -> Result<bool> {
        Ok(self.port.cancelled())
    }
}

/// Bytes of a line, as far as they would be kept.
fn size(message: &str, fields: &[(String, String)]) -> u64 {
    let field =
        |(name, json): &(String, String)| name.len().min(bounds::FIELD_NAME) + json.len().min(bounds::FIELD);
    let fields: usize = fields.iter().take(bounds::FIELDS).map(field).sum();
    (message.len().min(bounds::MESSAGE) + fields) as u64
}

/// The first fields, with one that counts the others where there are too many.
fn to_fields(fields: Vec<(String, String)>) -> Map<String, Value> {
    let more = fields.len().saturating_sub(bounds::FIELDS);
    let kept = fields.into_iter().take(bounds::FIELDS);
    let mut kept = kept
        .map(|(name, json)| (bounds::cut(name, bounds::FIELD_NAME), bounds::field(json)))
        .collect::<Map<_, _>>();
    if more > 0 {
        kept.insert("fields_not_kept".to_owned(), more.into());
    }
    kept
}

fn log_level(level: context::Level) -> LogLevel {
    match level {
        context::Level::Trace => LogLevel::Trace,
        context::Level::Debug => LogLevel::Debug,
        context::Level::Info => LogLevel::Info,
        context::Level::Warn => LogLevel::Warn,
        context::Level::Error => LogLevel::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_keeps_so_many_fields_and_says_how_many_more_there_were() {
        let fields = |count: usize| (0..count).map(|n| (format!("f{n}"), n.to_string())).collect();
        assert_eq!(to_fields(fields(bounds::FIELDS)).len(), bounds::FIELDS);
        let many = to_fields(fields(bounds::FIELDS + 7));
        assert_eq!(many.len(), bounds::FIELDS + 1);
        assert_eq!((&many["f0"], &many["fields_not_kept"]), (&Value::from(0), &Value::from(7)));
        let name = to_fields(vec![("n".repeat(1000), "1".to_owned())]);
        assert!(name.keys().all(|name| name.len() < 300), "{name:?}");
    }
}
