//! The `context` interface: log, progress, checkpoint, cancellation.

use std::sync::Arc;

use serde_json::Value;
use wasmtime::Result;
use wasmtime::component::{HasData, Linker};

use super::Port;
use super::bindings::innkeeper::plugin::{context, types};
use super::stdio::Output;
use crate::execution::{LogLevel, LogLine, Progress};

/// What the interface needs of one execution.
pub struct ContextView<'a> {
    /// The host's side.
    pub port: &'a Arc<dyn Port>,
    /// What the guest wrote to its standard streams and is not in the log yet.
    pub output: &'a Output,
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
        // What was printed before the line stands before it.
        let mut lines = self.output.take();
        let fields = fields.into_iter().map(|(name, json)| (name, to_json(json))).collect();
        lines.push(LogLine { at: crate::clock::now(), level: log_level(level), message, fields });
        self.port.log(lines).await;
        Ok(())
    }

    async fn progress(&mut self, done: u64, total: Option<u64>, message: Option<String>) -> Result<()> {
        self.port.progress(Progress { done, total, message }).await;
        Ok(())
    }

    async fn save_checkpoint(&mut self, state: String) -> Result<Result<(), String>> {
        match serde_json::from_str(&state) {
            Ok(state) => Ok(self.port.save_checkpoint(state).await),
            Err(error) => Ok(Err(format!("the state is not JSON: {error}"))),
        }
    }

    async fn cancelled(&mut self) -> Result<bool> {
        Ok(self.port.cancelled())
    }
}

/// A field that is not JSON is kept as the text that it is: a log line is never refused.
fn to_json(text: String) -> Value {
    serde_json::from_str(&text).unwrap_or(Value::String(text))
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
