//! Values of parameters and columns.

use std::time::SystemTime;

use crate::time::{from_micros, parse_utc, to_micros};

pub use crate::bindings::innkeeper::plugin::db::Value;

/// A type that a [`Value`] can be read as.
///
/// The types of this crate are lenient only where nothing is lost: an integer is read from an
/// exact number without a fraction (PostgreSQL's `sum` of a `bigint` is one), a float from an
/// integer that it can hold (SQLite stores 12.0 in a `NUMERIC` column as one), a boolean from 0
/// and 1 (SQLite has no boolean), JSON and a [`SystemTime`] from the text that SQLite stores them
/// as, such as `2024-02-29 12:34:56.5`, which is in UTC.
pub trait FromValue<'a>: Sized {
    /// Reads the value.
    ///
    /// # Errors
    /// What was expected and what was found, such as "expected an integer, found text".
    fn from_value(value: &'a Value) -> Result<Self, String>;
}

macro_rules! from_copy {
    ($($type:ty => |$value:ident| $into:expr;)+) => {
        $(
            impl From<$type> for Value {
                fn from($value: $type) -> Self {
                    $into
                }
            }
        )+
    };
}

from_copy! {
    bool => |value| Self::Boolean(value);
    i8 => |value| Self::Integer(value.into());
    i16 => |value| Self::Integer(value.into());
    i32 => |value| Self::Integer(value.into());
    i64 => |value| Self::Integer(value);
    u8 => |value| Self::Integer(value.into());
    u16 => |value| Self::Integer(value.into());
    u32 => |value| Self::Integer(value.into());
    f32 => |value| Self::Float(value.into());
    f64 => |value| Self::Float(value);
    &str => |value| Self::Text(value.to_owned());
    String => |value| Self::Text(value);
    &String => |value| Self::Text(value.clone());
    &[u8] => |value| Self::Bytes(value.to_owned());
    Vec<u8> => |value| Self::Bytes(value);
    &Vec<u8> => |value| Self::Bytes(value.clone());
    SystemTime => |value| Self::Instant(to_micros(value));
    serde_json::Value => |value| Self::Json(value.to_string());
    &serde_json::Value => |value| Self::Json(value.to_string());
    &Value => |value| value.clone();
}

impl<const N: usize> From<&[u8; N]> for Value {
    fn from(value: &[u8; N]) -> Self {
        Self::Bytes(value.to_vec())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

macro_rules! integer_from_value {
    ($($type:ident)+) => {
        $(
            impl FromValue<'_> for $type {
                fn from_value(value: &Value) -> Result<Self, String> {
                    match value {
                        Value::Integer(integer) => Self::try_from(*integer)
                            .map_err(|_| format!("{integer} does not fit {}", stringify!($type))),
                        Value::Decimal(digits) => digits
                            .parse()
                            .map_err(|_| format!("{digits} does not fit {}", stringify!($type))),
                        other => Err(mismatch("an integer", other)),
                    }
                }
            }
        )+
    };
}

integer_from_value!(i8 i16 i32 i64 u8 u16 u32 u64 usize);

impl FromValue<'_> for f64 {
    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::Float(float) => Ok(*float),
            // Every integer up to here is a float, and not every one beyond.
            Value::Integer(integer) if integer.unsigned_abs() <= 1 << Self::MANTISSA_DIGITS => {
                Ok(*integer as Self)
            }
            Value::Integer(integer) => Err(format!("{integer} does not fit f64")),
            other => Err(mismatch("a float", other)),
        }
    }
}

/// A column of single precision arrives as `f64` and is read back exactly.
impl FromValue<'_> for f32 {
    fn from_value(value: &Value) -> Result<Self, String> {
        let float = f64::from_value(value)?;
        let narrowed = float as Self;
        if float.is_nan() || f64::from(narrowed) == float {
            return Ok(narrowed);
        }
        Err(format!("{float} does not fit f32"))
    }
}

impl FromValue<'_> for bool {
    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::Boolean(boolean) => Ok(*boolean),
            Value::Integer(0) => Ok(false),
            Value::Integer(1) => Ok(true),
            other => Err(mismatch("a boolean", other)),
        }
    }
}

/// The text of every value that arrives as text: text itself, exact numbers, UUIDs, JSON, and
/// types that have no case of their own.
impl<'a> FromValue<'a> for &'a str {
    fn from_value(value: &'a Value) -> Result<Self, String> {
        match value {
            Value::Text(text)
            | Value::Decimal(text)
            | Value::Uuid(text)
            | Value::Json(text)
            | Value::Other(text) => Ok(text),
            other => Err(mismatch("text", other)),
        }
    }
}

impl FromValue<'_> for String {
    fn from_value(value: &Value) -> Result<Self, String> {
        <&str>::from_value(value).map(str::to_owned)
    }
}

impl<'a> FromValue<'a> for &'a [u8] {
    fn from_value(value: &'a Value) -> Result<Self, String> {
        match value {
            Value::Bytes(bytes) => Ok(bytes),
            other => Err(mismatch("bytes", other)),
        }
    }
}

impl FromValue<'_> for Vec<u8> {
    fn from_value(value: &Value) -> Result<Self, String> {
        <&[u8]>::from_value(value).map(<[u8]>::to_vec)
    }
}

impl FromValue<'_> for SystemTime {
    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::Instant(micros) => Ok(from_micros(*micros)),
            Value::Text(text) => parse_utc(text)
                .map(from_micros)
                .ok_or_else(|| "the text is not an instant such as 2024-02-29 12:34:56.5".to_owned()),
            other => Err(mismatch("an instant", other)),
        }
    }
}

impl FromValue<'_> for serde_json::Value {
    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::Json(text) | Value::Text(text) => {
                serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))
            }
            other => Err(mismatch("JSON", other)),
        }
    }
}

impl<'a> FromValue<'a> for &'a Value {
    fn from_value(value: &'a Value) -> Result<Self, String> {
        Ok(value)
    }
}

impl FromValue<'_> for Value {
    fn from_value(value: &Value) -> Result<Self, String> {
        Ok(value.clone())
    }
}

impl<'a, T: FromValue<'a>> FromValue<'a> for Option<T> {
    fn from_value(value: &'a Value) -> Result<Self, String> {
        match value {
            Value::Null => Ok(None),
            value => T::from_value(value).map(Some),
        }
    }
}

pub(super) fn mismatch(expected: &str, found: &Value) -> String {
    match found {
        Value::Null => format!("expected {expected}, found NULL; read it as an `Option` if NULL is expected"),
        found => format!("expected {expected}, found {}", kind(found)),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "NULL",
        Value::Boolean(_) => "a boolean",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a float",
        Value::Decimal(_) => "an exact number",
        Value::Text(_) => "text",
        Value::Bytes(_) => "bytes",
        Value::Date(_) => "a date",
        Value::Time(_) => "a time of day",
        Value::Timestamp(_) => "a timestamp without a time zone",
        Value::Instant(_) => "an instant",
        Value::Uuid(_) => "a UUID",
        Value::Json(_) => "JSON",
        Value::BooleanArray(_) => "an array of booleans",
        Value::IntegerArray(_) => "an array of integers",
        Value::FloatArray(_) => "an array of floats",
        Value::TextArray(_) => "an array of texts",
        Value::Other(_) => "a value of another type, as text",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_usual_types_convert_into_values() {
        assert_eq!(Value::from(true), Value::Boolean(true));
        assert_eq!(Value::from(7_u32), Value::Integer(7));
        assert_eq!(Value::from(i64::MIN), Value::Integer(i64::MIN));
        assert_eq!(Value::from(1.5), Value::Float(1.5));
        assert_eq!(Value::from("héllo"), Value::Text("héllo".into()));
        assert_eq!(Value::from(b"\0x"), Value::Bytes(vec![0, b'x']));
        assert_eq!(Value::from(serde_json::json!({"a": 1})), Value::Json(r#"{"a":1}"#.into()));
        let time = SystemTime::UNIX_EPOCH + Duration::from_micros(5);
        assert_eq!(Value::from(time), Value::Instant(5));
        assert_eq!(Value::from(Some("x")), Value::Text("x".into()));
        assert_eq!(Value::from(None::<&str>), Value::Null);
    }

    #[test]
    fn values_are_read_where_nothing_is_lost() {
        assert_eq!(u8::from_value(&Value::Integer(255)), Ok(255));
        assert_eq!(i64::from_value(&Value::Decimal("-12".into())), Ok(-12));
        assert_eq!(bool::from_value(&Value::Integer(1)), Ok(true));
        assert_eq!(<&str>::from_value(&Value::Uuid("u".into())), Ok("u"));
        assert_eq!(serde_json::Value::from_value(&Value::Text("[1]".into())), Ok(serde_json::json!([1])));
        assert_eq!(Option::<i64>::from_value(&Value::Null), Ok(None));
        assert_eq!(Option::<i64>::from_value(&Value::Integer(3)), Ok(Some(3)));
        assert_eq!(Value::from_value(&Value::Date(1)), Ok(Value::Date(1)));
        assert_eq!(f64::from_value(&Value::Integer(1 << 53)), Ok(9_007_199_254_740_992.0));
        assert_eq!(f32::from_value(&Value::Float(0.1_f32.into())), Ok(0.1));
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1500);
        assert_eq!(SystemTime::from_value(&Value::Instant(1_500_000)), Ok(time));
        assert_eq!(SystemTime::from_value(&Value::Text("1970-01-01 00:00:01.5".into())), Ok(time));
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let refused = |value| i8::from_value(&value).unwrap_err();
        assert_eq!(refused(Value::Integer(128)), "128 does not fit i8");
        assert_eq!(refused(Value::Decimal("1.5".into())), "1.5 does not fit i8");
        assert_eq!(refused(Value::Text("1".into())), "expected an integer, found text");
        assert_eq!(
            refused(Value::Null),
            "expected an integer, found NULL; read it as an `Option` if NULL is expected"
        );
        assert_eq!(
            f64::from_value(&Value::Integer(i64::MAX)).unwrap_err(),
            "9223372036854775807 does not fit f64"
        );
        assert_eq!(f32::from_value(&Value::Float(0.1)).unwrap_err(), "0.1 does not fit f32");
        assert!(SystemTime::from_value(&Value::Text("now".into())).unwrap_err().contains("not an instant"));
        assert_eq!(bool::from_value(&Value::Integer(2)).unwrap_err(), "expected a boolean, found an integer");
        assert!(serde_json::Value::from_value(&Value::Text("{".into())).unwrap_err().contains("not JSON"));
    }
}
