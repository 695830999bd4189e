//! Values to and from SQLite's storage classes.
//!
//! A value arrives by the class that it is stored in, whatever type its column declares: a
//! column `BOOLEAN` holds integers, one `DATETIME` texts or numbers. What SQLite has no class
//! for is stored as text in one form, chosen so that texts sort as the values do and read as
//! SQLite's own functions write them:
//!
//! - `boolean`: 0 or 1
//! - `decimal`, `uuid`, `json`, `other`: their text
//! - `date`: `2024-02-29`
//! - `time`: `12:34:56`, or `12:34:56.000001` where there is a fraction
//! - `timestamp`, and `instant` in UTC: `2024-02-29 12:34:56`, with a fraction likewise

use rusqlite::types::{Value as Stored, ValueRef};

use crate::interfaces::db::{Error, ErrorKind, Value, civil, error};

/// The days from 0000-01-01 to 9999-12-31: beyond, texts would no longer sort, and SQLite's
/// functions no longer read them.
const DAYS: std::ops::RangeInclusive<i64> = -719_528..=2_932_896;

/// Every parameter in the class that it is stored in.
///
/// # Errors
/// `conversion`, naming the parameter that SQLite cannot hold as it is.
pub(super) fn encode(params: &[Value]) -> Result<Vec<Stored>, Error> {
    params.iter().enumerate().map(|(index, value)| encode_one(index, value)).collect()
}

fn encode_one(index: usize, value: &Value) -> Result<Stored, Error> {
    let stored = match value {
        Value::Null => Stored::Null,
        Value::Boolean(value) => Stored::Integer((*value).into()),
        Value::Integer(value) => Stored::Integer(*value),
        // SQLite would store NULL.
        Value::Float(value) if value.is_nan() => {
            return Err(cannot_take(index, "NaN".to_owned(), "SQLite has no NaN"));
        }
        Value::Float(value) => Stored::Real(*value),
        Value::Bytes(bytes) => Stored::Blob(bytes.clone()),
        Value::BooleanArray(_) | Value::IntegerArray(_) | Value::FloatArray(_) | Value::TextArray(_) => {
            return Err(cannot_take(
                index,
                error::describe(value),
                "SQLite has no arrays; pass JSON and read it with json_each",
            ));
        }
        Value::Decimal(text)
        | Value::Text(text)
        | Value::Uuid(text)
        | Value::Json(text)
        | Value::Other(text) => Stored::Text(text.clone()),
        Value::Date(_) | Value::Time(_) | Value::Timestamp(_) | Value::Instant(_) => {
            Stored::Text(moment(value).ok_or_else(|| {
                let why = "text can hold the years 0000 to 9999, and times from 00:00:00 to 24:00:00";
                cannot_take(index, error::describe(value), why)
            })?)
        }
    };
    Ok(stored)
}

fn cannot_take(index: usize, given: String, why: &str) -> Error {
    error::new(ErrorKind::Conversion, format!("parameter ${} cannot take {given}: {why}", index + 1))
}

fn moment(value: &Value) -> Option<String> {
    const DAY: i64 = 86_400_000_000;
    match value {
        Value::Date(days) => {
            let days = i64::from(*days);
            DAYS.contains(&days).then(|| iso(&civil::date_text(days)))
        }
        Value::Time(micros) => (0..=DAY).contains(micros).then(|| civil::time_text(*micros)),
        Value::Timestamp(micros) | Value::Instant(micros) => {
            DAYS.contains(&micros.div_euclid(DAY)).then(|| iso(&civil::timestamp_text(*micros, "")))
        }
        _ => None,
    }
}

/// ISO 8601 counts a year 0, which PostgreSQL calls 1 BC.
fn iso(text: &str) -> String {
    match text.strip_suffix(" BC") {
        Some(rest) => rest.replacen("0001", "0000", 1),
        None => text.to_owned(),
    }
}

/// Reads a value of a row, from the column of that name.
///
/// # Errors
/// `conversion`, naming the column and the cast to write, for a text that is not UTF-8.
pub(super) fn decode<'a>(column: impl FnOnce() -> &'a str, value: ValueRef<'_>) -> Result<Value, Error> {
    Ok(match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => Value::Integer(value),
        ValueRef::Real(value) => Value::Float(value),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => {
                let column = column();
                let message = format!(
                    "column `{column}` holds a text that is not UTF-8: write `CAST({column} AS BLOB)` in the statement"
                );
                return Err(error::new(ErrorKind::Conversion, message));
            }
        },
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_owned()),
    })
}

/// The class that a value is stored in, as `typeof` names it but in capitals.
pub(super) fn class(value: ValueRef<'_>) -> &'static str {
    match value {
        ValueRef::Null => "NULL",
        ValueRef::Integer(_) => "INTEGER",
        ValueRef::Real(_) => "REAL",
        ValueRef::Text(_) => "TEXT",
        ValueRef::Blob(_) => "BLOB",
    }
}
