//! From the host's calls to the functions of the plugin: what `#[handler]` and `plugin!` expand to.

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::exports::innkeeper::plugin::handlers as wit;
use crate::bindings::innkeeper::plugin::types;
use crate::db::{BeginOptions, Transaction};
use crate::{Context, Failure, db};

/// Bytes of the longest result that the host keeps, as `handler.wit` says.
const LONGEST_RESULT: usize = 1024 * 1024;

/// How deep a result may nest, as `handler.wit` says.
const DEEPEST_RESULT: usize = 64;

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
    let args = parse(args)?;
    to_json(&function(context, args).map_err(Into::into)?)
}

/// Calls a handler that is one transaction and takes no arguments.
pub fn call_in_transaction<R: Serialize, E: Into<Failure>>(
    function: impl FnOnce(&Context, &Transaction) -> Result<R, E>,
    options: BeginOptions,
    context: &Context,
) -> Result<String, Failure> {
    in_transaction(options, |tx| function(context, tx))
}

/// Calls a handler that is one transaction and takes arguments.
pub fn call_with_args_in_transaction<A: DeserializeOwned, R: Serialize, E: Into<Failure>>(
    function: impl FnOnce(&Context, &Transaction, A) -> Result<R, E>,
    options: BeginOptions,
    context: &Context,
    args: &str,
) -> Result<String, Failure> {
    let args = parse(args)?;
    in_transaction(options, |tx| function(context, tx, args))
}

/// Commits only what the host will record as done. After an error the transaction is dropped,
/// which rolls it back.
fn in_transaction<R: Serialize, E: Into<Failure>>(
    options: BeginOptions,
    function: impl FnOnce(&Transaction) -> Result<R, E>,
) -> Result<String, Failure> {
    let transaction = db::begin_with(options)?;
    let result = to_json(&function(&transaction).map_err(Into::into)?)?;
    refuse_what_the_host_refuses(&result)?;
    transaction.commit()?;
    Ok(result)
}

fn refuse_what_the_host_refuses(result: &str) -> Result<(), Failure> {
    let what = if result.len() > LONGEST_RESULT {
        format!("has {} bytes, and at most {LONGEST_RESULT} are kept", result.len())
    } else {
        match nesting(result) {
            ..=DEEPEST_RESULT => return Ok(()),
            deep => format!("nests {deep} deep, and {DEEPEST_RESULT} are allowed"),
        }
    };
    Err(Failure::permanent(format!("the handler's result {what}, so that its transaction was rolled back")))
}

/// How deep the lists and objects of a JSON text are within each other.
fn nesting(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn parse<A: DeserializeOwned>(args: &str) -> Result<A, Failure> {
    serde_json::from_str(args)
        .map_err(|error| Failure::permanent(format!("the arguments do not fit the handler: {error}")))
}

/// The work is done when its result is written, so doing it again is no way out.
fn to_json(result: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(result).map_err(|error| {
        Failure::permanent(format!("the handler's result cannot be written as JSON: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_that_the_host_would_refuse_is_refused_before_the_commit() {
        assert_eq!(refuse_what_the_host_refuses(&"x".repeat(LONGEST_RESULT)), Ok(()));
        let long = refuse_what_the_host_refuses(&"x".repeat(LONGEST_RESULT + 1)).unwrap_err();
        assert!(long.message().contains("1048577 bytes") && matches!(long, Failure::Permanent(_)), "{long}");
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(refuse_what_the_host_refuses(&nested(DEEPEST_RESULT)), Ok(()));
        assert!(refuse_what_the_host_refuses(&nested(DEEPEST_RESULT + 1)).is_err());
        let text = format!("\"\\\"{}\"", "[".repeat(100));
        assert_eq!(refuse_what_the_host_refuses(&text), Ok(()), "brackets in a text do not nest");
    }
}
