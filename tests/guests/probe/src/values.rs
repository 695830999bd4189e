//! Between the values of the database and JSON, so that tests see the exact case.
//!
//! NULL, booleans, integers, finite floats and text are what they are in JSON. Every other case
//! is an object with the case as its only key: `{"decimal": "1.50"}`, `{"bytes": [0, 255]}`,
//! `{"date": 1}`, `{"time": 1}`, `{"timestamp": 1}`, `{"instant": 1}`, `{"uuid": "…"}`,
//! `{"json": {…}}` (`{"json-text": "…"}` to pass text that need not be JSON),
//! `{"other": "…"}`, `{"float": "NaN"}` for what is no JSON number, and `{"boolean-array": [true, null]}`,
//! `{"integer-array": […]}`, `{"float-array": […]}`, `{"text-array": […]}`.

use innkeeper_sdk::db::Value;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};

/// The value of a parameter.
pub(crate) fn from_json(json: Json) -> Result<Value, String> {
    Ok(match json {
        Json::Null => Value::Null,
        Json::Bool(boolean) => Value::Boolean(boolean),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Value::Integer(integer),
            (None, Some(float)) if !number.is_u64() => Value::Float(float),
            _ => return Err(format!("{number} is no integer of 64 bits")),
        },
        Json::String(text) => Value::Text(text),
        Json::Array(_) => return Err("an array is no value of a parameter".to_owned()),
        Json::Object(object) => {
            let mut entries = object.into_iter();
            match (entries.next(), entries.next()) {
                (Some((case, json)), None) => tagged(&case, json)?,
                _ => return Err("a tagged value has one key, which is its case".to_owned()),
            }
        }
    })
}

fn tagged(case: &str, json: Json) -> Result<Value, String> {
    let text = || json.as_str().map(str::to_owned).ok_or(format!("{case} takes a string"));
    let integer = || json.as_i64().ok_or(format!("{case} takes an integer"));
    Ok(match case {
        "float" => Value::Float(match &json {
            Json::Number(number) => number.as_f64().ok_or("float takes a number")?,
            // As an element of an array is written.
            Json::Object(_) => return from_json(json),
            _ => text()?.parse().map_err(|error| format!("float: {error}"))?,
        }),
        "decimal" => Value::Decimal(text()?),
        "bytes" => Value::Bytes(serde_json::from_value(json).map_err(|error| format!("bytes: {error}"))?),
        "date" => Value::Date(i32::try_from(integer()?).map_err(|error| format!("date: {error}"))?),
        "time" => Value::Time(integer()?),
        "timestamp" => Value::Timestamp(integer()?),
        "instant" => Value::Instant(integer()?),
        "uuid" => Value::Uuid(text()?),
        "json" => Value::Json(json.to_string()),
        "json-text" => Value::Json(text()?),
        "other" => Value::Other(text()?),
        "boolean-array" => Value::BooleanArray(elements(case, json)?),
        "integer-array" => Value::IntegerArray(elements(case, json)?),
        "text-array" => Value::TextArray(elements(case, json)?),
        "float-array" => {
            let float = |element: Option<Json>| match element {
                None => Ok(None),
                Some(json) => match tagged("float", json)? {
                    Value::Float(float) => Ok(Some(float)),
                    _ => Err("float-array takes floats".to_owned()),
                },
            };
            let elements = elements::<Json>(case, json)?;
            Value::FloatArray(elements.into_iter().map(float).collect::<Result<_, String>>()?)
        }
        _ => return Err(format!("{case:?} is no case of a value")),
    })
}

fn elements<T: DeserializeOwned>(case: &str, json: Json) -> Result<Vec<Option<T>>, String> {
    serde_json::from_value(json).map_err(|error| format!("{case}: {error}"))
}

/// The value of a column.
pub(crate) fn to_json(value: Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Boolean(boolean) => json!(boolean),
        Value::Integer(integer) => json!(integer),
        Value::Float(float) if float.is_finite() => json!(float),
        Value::Float(float) => json!({ "float": float.to_string() }),
        Value::Text(text) => json!(text),
        Value::Decimal(digits) => json!({ "decimal": digits }),
        Value::Bytes(bytes) => json!({ "bytes": bytes }),
        Value::Date(days) => json!({ "date": days }),
        Value::Time(micros) => json!({ "time": micros }),
        Value::Timestamp(micros) => json!({ "timestamp": micros }),
        Value::Instant(micros) => json!({ "instant": micros }),
        Value::Uuid(text) => json!({ "uuid": text }),
        Value::Json(text) => match serde_json::from_str::<Json>(&text) {
            Ok(parsed) => json!({ "json": parsed }),
            Err(_) => json!({ "json-text": text }),
        },
        Value::BooleanArray(elements) => json!({ "boolean-array": elements }),
        Value::IntegerArray(elements) => json!({ "integer-array": elements }),
        Value::FloatArray(elements) => {
            let element =
                |element: Option<f64>| element.map_or(Json::Null, |float| to_json(Value::Float(float)));
            json!({ "float-array": elements.into_iter().map(element).collect::<Vec<_>>() })
        }
        Value::TextArray(elements) => json!({ "text-array": elements }),
        Value::Other(text) => json!({ "other": text }),
    }
}
