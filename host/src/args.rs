//! Whether arguments fit the JSON Schema that a handler describes them with.
//!
//! Pure: references to other documents are refused, never fetched.

use std::fmt;

use jsonschema::error::{ValidationError, ValidationErrorKind};
use serde_json::Value;

use crate::suggest;

/// More problems than these help nobody.
const MOST_PROBLEMS: usize = 20;
/// Longer values are cut in messages.
const LONGEST_SHOWN: usize = 60;

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
    schema: Value,
}

impl ArgsSchema {
    /// Makes a schema of its JSON.
    ///
    /// # Errors
    /// Where it is no schema, or refers to another document.
    pub fn compile(schema: Value) -> Result<Self, ArgsError> {
        let built = jsonschema::options().offline().build(&schema);
        let validator = built.map_err(|error| {
            let place = error.instance_path().as_str();
            ArgsError::Schema(Problem::at(place, &error.to_string()))
        })?;
        Ok(Self { validator, schema })
    }

    /// Checks arguments.
    ///
    /// # Errors
    /// Everything in them that does not fit.
    pub fn check(&self, args: &Value) -> Result<(), ArgsError> {
        let mut problems = Vec::new();
        for error in self.validator.iter_errors(args).take(MOST_PROBLEMS) {
            self.explain(&error, &mut problems);
        }
        problems.truncate(MOST_PROBLEMS);
        if problems.is_empty() { Ok(()) } else { Err(ArgsError::Problems(problems)) }
    }

    fn explain(&self, error: &ValidationError<'_>, problems: &mut Vec<Problem>) {
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
        let message = format!("{}{hint}", error.masked_with(value));
        let masked = format!("{}{hint}", error.masked_with("the value"));
        problems.push(Problem { pointer, message, masked });
    }

    /// "Did you mean" for the first of the unexpected properties that has one.
    fn nearest_property(&self, error: &ValidationError<'_>, unexpected: &[String]) -> String {
        let place = error.schema_path().as_str();
        let parent = place.rsplit_once('/').map_or("", |(parent, _)| parent);
        let properties = self.schema.pointer(parent).and_then(|schema| schema.get("properties")?.as_object());
        let Some(properties) = properties else { return String::new() };
        let hints = unexpected.iter().map(|name| suggest::hint(name, properties.keys().map(String::as_str)));
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(schema: &Value, args: &Value) -> String {
        check_args(Some(schema), args).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn every_problem_is_told_with_its_pointer() {
        let schema = json!({
            "type": "object",
            "properties": {
                "retention_days": { "type": "integer", "minimum": 0 },
                "tables": { "type": "array", "items": { "type": "string" } },
            },
            "required": ["retention_days", "mode"],
        });
        assert_eq!(said(&schema, &json!({ "retention_days": 7, "mode": "x" })), "");
        assert_eq!(
            said(&schema, &json!({ "retention_days": -1, "tables": ["a", 2] })),
            "\"mode\" is a required property; /retention_days: -1 is less than the minimum of 0; \
             /tables/1: 2 is not of type \"string\""
        );
        assert_eq!(said(&schema, &json!(null)), "null is not of type \"object\"");
    }

    #[test]
    fn an_unknown_property_comes_with_the_one_that_was_meant() {
        let schema = json!({
            "properties": { "inner": { "$ref": "#/$defs/inner" } },
            "$defs": {
                "inner": { "properties": { "retention_days": {} }, "additionalProperties": false },
            },
        });
        assert_eq!(
            said(&schema, &json!({ "inner": { "retention_dyas": 7 } })),
            "/inner: Additional properties are not allowed ('retention_dyas' was unexpected); did you mean \
             `retention_days`?"
        );
    }

    #[test]
    fn a_choice_says_what_there_is_to_choose_from() {
        // As schemars describes an enum whose variants have doc comments, and an optional one.
        let unit = json!({ "oneOf": [{ "const": "seconds" }, { "const": "text" }] });
        assert!(said(&unit, &json!("hours")).ends_with(": use one of \"seconds\", \"text\""));
        let optional = json!({ "anyOf": [{ "type": "integer", "maximum": 9 }, { "type": "null" }] });
        assert_eq!(said(&optional, &json!(null)), "");
        assert_eq!(said(&optional, &json!(10)), "10 is greater than the maximum of 9");
    }

    #[test]
    fn a_long_value_is_cut_and_a_masked_message_has_none() {
        let schema = json!({ "type": "integer" });
        let long = json!("ä".repeat(1000));
        assert!(said(&schema, &long).len() < 200);
        let Err(ArgsError::Problems(problems)) = check_args(Some(&schema), &long) else {
            panic!("a string is no integer");
        };
        assert_eq!(problems[0].masked(), "the value is not of type \"integer\"");
    }

    #[test]
    fn there_is_an_end_to_the_problems() {
        let schema = json!({ "items": { "type": "integer" } });
        let args = json!(vec!["x"; 1000]);
        let Err(ArgsError::Problems(problems)) = check_args(Some(&schema), &args) else {
            panic!("strings are no integers");
        };
        assert_eq!(problems.len(), MOST_PROBLEMS);
    }

    #[test]
    fn a_schema_that_is_none_is_the_plugins_fault() {
        for schema in [
            r#"{"type": "number-like"}"#,
            r#"{"$ref": "https://example.com/schema.json"}"#,
            r#"{"$ref": "file:///etc/passwd"}"#,
            r##"{"$ref": "#/$defs/missing"}"##,
            r#"{"pattern": "("}"#,
            "7",
        ] {
            let schema = serde_json::from_str(schema).unwrap();
            let error = check_args(Some(&schema), &json!({})).unwrap_err();
            assert!(matches!(error, ArgsError::Schema(_)), "{schema}: {error:?}");
            assert!(error.to_string().starts_with("the plugin's schema"), "{error}");
        }
    }

    #[test]
    fn a_schema_that_refers_to_itself_comes_to_an_end() {
        for schema in [
            json!({ "$ref": "#" }),
            json!({ "allOf": [{ "$ref": "#" }] }),
            json!({ "anyOf": [{ "$ref": "#/$defs/a" }], "$defs": { "a": { "not": { "$ref": "#" } } } }),
            json!({ "$dynamicRef": "#" }),
            json!({ "properties": { "a": { "$ref": "#" } } }),
        ] {
            let _ = check_args(Some(&schema), &json!({ "a": { "a": 1 } }));
        }
    }

    #[test]
    fn without_a_schema_anything_goes() {
        assert_eq!(check_args(None, &json!([1])), Ok(()));
    }
}
