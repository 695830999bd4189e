//! From the host's calls to the functions of the plugin: what `#[handler]` and `plugin!` expand to.

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::exports::innkeeper::plugin::handlers as wit;
use crate::bindings::innkeeper::plugin::types;
use crate::{Context, Failure};

/// One handler of a plugin.
pub struct Entry {
    /// In kebab-case.
    pub name: &'static str,
    /// In one line.
    pub summary: &'static str,
    /// The JSON Schema of its arguments; none when it takes no arguments.
    pub args_schema: fn() -> Option<String>,
    /// Runs it with its arguments as JSON.
    pub call: fn(&Context, &str) -> Result<String, Failure>,
}

/// What `#[handler]` implements on the type that it generates.
pub trait Handler {
    /// The handler.
    const ENTRY: Entry;
}

/// Stops the compiler when two handlers of a plugin have the same name.
pub const fn assert_unique(entries: &[Entry]) {
    let mut later = 1;
    while later < entries.len() {
        let mut earlier = 0;
        while earlier < later {
            assert!(
                !equal(entries[earlier].name.as_bytes(), entries[later].name.as_bytes()),
                "two handlers of the plugin have the same name"
            );
            earlier += 1;
        }
        later += 1;
    }
}

const fn equal(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let mut i = 0;
    while i < left.len() {
        if left[i] != right[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// Answers the host's `describe`.
#[must_use]
pub fn describe(entries: &[Entry]) -> Vec<wit::Handler> {
    entries
        .iter()
        .map(|entry| wit::Handler {
            name: entry.name.to_owned(),
            summary: entry.summary.to_owned(),
            args_schema: (entry.args_schema)(),
            annotations: Vec::new(),
        })
        .collect()
}

/// Answers the host's `run`.
pub fn run(
    entries: &[Entry],
    handler: &str,
    args: &str,
    execution: types::Execution,
) -> Result<String, types::Failure> {
    let Some(entry) = entries.iter().find(|entry| entry.name == handler) else {
        let names: Vec<&str> = entries.iter().map(|entry| entry.name).collect();
        let message =
            format!("this plugin has no handler {handler:?}; its handlers are: {}", names.join(", "));
        return Err(types::Failure::Permanent(message));
    };
    (entry.call)(&Context::new(execution), args).map_err(Into::into)
}

/// The JSON Schema of a handler's arguments.
#[must_use]
pub fn schema_of<A: DeserializeOwned + JsonSchema>() -> String {
    schemars::schema_for!(A).as_value().to_string()
}

/// Calls a handler that takes no arguments.
pub fn call<R: Serialize, E: Into<Failure>>(
    function: impl FnOnce(&Context) -> Result<R, E>,
    context: &Context,
) -> Result<String, Failure> {
    to_json(&function(context).map_err(Into::into)?)
}

/// Calls a handler that takes arguments.
pub fn call_with_args<A: DeserializeOwned, R: Serialize, E: Into<Failure>>(
    function: impl FnOnce(&Context, A) -> Result<R, E>,
    context: &Context,
    args: &str,
) -> Result<String, Failure> {
    let args = serde_json::from_str(args)
        .map_err(|error| Failure::permanent(format!("the arguments do not fit the handler: {error}")))?;
    to_json(&function(context, args).map_err(Into::into)?)
}

/// The work is done when its result is written, so doing it again is no way out.
fn to_json(result: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(result).map_err(|error| {
        Failure::permanent(format!("the handler's result cannot be written as JSON: {error}"))
    })
}
