//! Whether arguments fit the JSON Schema that a handler describes them with.
//!
//! Pure: references to other documents are refused, never fetched.
//!
//! A plugin writes its schemas, and the host evaluates them outside of the plugin's limits. So what a
//! schema may be is bounded before it is compiled (`bounded`), and what it costs to hold arguments
//! against it is counted before that is done (`cost`).

mod bounded;
mod cost;
mod keywords;
#[cfg(test)]
mod tests;

use std::fmt;

use jsonschema::error::{ValidationError, ValidationErrorKind};
use serde_json::Value;

use crate::{bounds, suggest};

/// More problems than these help nobody.
const MOST_PROBLEMS: usize = 20;
/// Names that one is compared with, to find the one that was meant.
const MOST_NAMES: usize = 500;
/// Longer values are cut in messages.
const LONGEST_SHOWN: usize = 60;
/// Longer messages are cut.
const LONGEST_MESSAGE: usize = 2048;

/// Checks arguments against a handler's schema; without one, anything goes.
///
/// # Errors
/// Where they do not fit, or the schema itself is none.
pub fn check_args(schema: Option<&Value>, args: &Value) -> Result<(), ArgsError> {
    let Some(schema) = schema else { return Ok(()) };
    ArgsSchema::compile(schema.clone())?.check(args)
}

/// Why arguments are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// The plugin's fault: nothing can be checked against its schema.
    #[error("the plugin's schema for the handler's arguments cannot be used: {0}")]
    Schema(String),
    /// What does not fit, each problem with its JSON pointer.
    #[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("; "))]
    Problems(Vec<Problem>),
}

/// One thing that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The value that is wrong, as a JSON pointer: empty for the arguments as a whole.
    pub pointer: String,
    message: String,
    masked: String,
}

impl Problem {
    /// The problem without the value that is wrong.
    #[must_use]
    pub fn masked(&self) -> String {
        Self::at(&self.pointer, &self.masked)
    }

    fn at(pointer: &str, message: &str) -> String {
        if pointer.is_empty() { message.to_owned() } else { format!("{pointer}: {message}") }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Self::at(&self.pointer, &self.message))
    }
}

/// A schema, ready to check arguments with: JSON Schema 2020-12, or the draft it names.
#[derive(Debug)]
pub struct ArgsSchema {
    validator: jsonschema::Validator,
    patterns: bounded::Patterns,
    schema: Value,
}

impl ArgsSchema {
    /// Makes a schema of its JSON.
    ///
    /// # Errors
    /// Where it is no schema, refers to another document, or might cost too much.
    pub fn compile(mut schema: Value) -> Result<Self, ArgsError> {
        let patterns = bounded::bounded(&schema).map_err(ArgsError::Schema)?;
        if let Value::Object(object) = &mut schema {
            // References are within the schema, whatever address it gives itself.
            for keyword in ["$id", "id"] {
                if object.get(keyword).is_some_and(Value::is_string) {
                    object.remove(keyword);
                }
            }
        }
        let options = jsonschema::options()
            .offline()
            .with_pattern_options(bounded::patterns())
            // It would compile whatever the arguments say.
            .with_format("regex", |_: &str| true);
        let built = options.build(&schema);
        let validator = built.map_err(|error| {
            let place = error.instance_path().as_str();
            let message = bounds::cut(error.to_string(), LONGEST_MESSAGE);
            ArgsError::Schema(Problem::at(place, &message))
        })?;
        Ok(Self { validator, patterns, schema })
    }

    /// Checks arguments.
    ///
    /// # Errors
    /// Everything in them that does not fit.
    pub fn check(&self, args: &Value) -> Result<(), ArgsError> {
        let count = |purpose| cost::count(&self.schema, &self.patterns, args, purpose);
        count(cost::Purpose::Check).map_err(ArgsError::Schema)?;
        if self.validator.is_valid(args) {
            return Ok(());
        }
        let mut problems = Vec::new();
        if count(cost::Purpose::Explain).is_ok() {
            for error in self.validator.iter_errors(args).take(MOST_PROBLEMS) {
                self.explain(&error, &mut problems);
            }
        }
        if problems.is_empty() {
            let message = "they do not fit, and are too large for the schema to say where";
            let (pointer, message) = (String::new(), message.to_owned());
            problems.push(Problem { pointer, masked: message.clone(), message });
        }
        Err(ArgsError::Problems(problems))
    }

    fn explain(&self, error: &ValidationError<'_>, problems: &mut Vec<Problem>) {
        if problems.len() >= MOST_PROBLEMS {
            return;
        }
        let mut hint = String::new();
        match error.kind() {
            ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
                if let Some(branch) = meant(context, error) {
                    return branch.iter().for_each(|error| self.explain(error, problems));
                }
                if let Some(words) = words(context) {
                    hint = format!(": use one of {words}");
                }
            }
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                hint = self.nearest_property(error, unexpected);
            }
            _ => {}
        }
        let pointer = error.instance_path().to_string();
        let value = shortened(error.instance());
        let message = bounds::cut(format!("{}{hint}", error.masked_with(value)), LONGEST_MESSAGE);
        let masked = bounds::cut(format!("{}{hint}", error.masked_with("the value")), LONGEST_MESSAGE);
        problems.push(Problem { pointer, message, masked });
    }

    /// "Did you mean" for the first of the unexpected properties that has one.
    fn nearest_property(&self, error: &ValidationError<'_>, unexpected: &[String]) -> String {
        let place = error.schema_path().as_str();
        let parent = place.rsplit_once('/').map_or("", |(parent, _)| parent);
        let properties = self.schema.pointer(parent).and_then(|schema| schema.get("properties")?.as_object());
        let Some(properties) = properties else { return String::new() };
        // A distance takes as many steps as the names have letters, multiplied.
        let short = |name: &&str| name.len() <= LONGEST_SHOWN;
        let known = || properties.keys().map(String::as_str).filter(short).take(MOST_NAMES);
        let names = unexpected.iter().map(String::as_str).filter(short).take(MOST_PROBLEMS);
        let hints = names.map(|name| suggest::hint(name, known()));
        hints.into_iter().find(|hint| !hint.is_empty()).unwrap_or_default()
    }
}

/// The alternative that was meant, if there is but one besides `null`: how an optional value
/// is described.
fn meant<'e>(
    context: &'e [Vec<ValidationError<'static>>],
    error: &ValidationError<'_>,
) -> Option<&'e [ValidationError<'static>]> {
    let here = error.instance_path();
    let other_type = |branch: &&Vec<ValidationError<'static>>| {
        !branch.iter().any(|inner| {
            matches!(inner.kind(), ValidationErrorKind::Type { .. }) && inner.instance_path() == here
        })
    };
    let mut branches = context.iter().filter(other_type);
    match (branches.next(), branches.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    }
}

/// The words to choose from, if every alternative is one or several of them.
fn words(context: &[Vec<ValidationError<'static>>]) -> Option<String> {
    let mut words = Vec::new();
    for branch in context {
        match branch.as_slice() {
            [error] => match error.kind() {
                ValidationErrorKind::Constant { expected_value } => words.push(expected_value.to_string()),
                ValidationErrorKind::Enum { options } => {
                    words.extend(options.as_array()?.iter().map(Value::to_string));
                }
                _ => return None,
            },
            _ => return None,
        }
    }
    (!words.is_empty()).then(|| words.join(", "))
}

fn shortened(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= LONGEST_SHOWN {
        return text;
    }
    text.chars().take(LONGEST_SHOWN).chain(['…']).collect()
}
