//! Schemas and arguments, of people and of those who mean harm.

mod hostile;

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
        let checked = check_args(Some(&schema), &json!({ "a": { "a": 1 } }));
        let in_place = schema.get("properties").is_none();
        assert_eq!(matches!(checked, Err(ArgsError::Schema(_))), in_place, "{schema}: {checked:?}");
    }
}

#[test]
fn without_a_schema_anything_goes() {
    assert_eq!(check_args(None, &json!([1])), Ok(()));
}
