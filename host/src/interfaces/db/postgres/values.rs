//! Values to and from PostgreSQL's binary formats.
//!
//! Pure. sqlx speaks the binary format only. A parameter is written in the format of the type
//! that the server inferred for it, whatever case of `value` it came in, so that the bytes
//! always mean what the statement expects.

use super::types::{Codec, Kind};
use super::{arrays, numeric};
use crate::interfaces::db::{Error, ErrorKind, Value, civil, error};

/// From 1970-01-01 to 2000-01-01, where PostgreSQL's dates begin.
const EPOCH_DAYS: i64 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS * 86_400_000_000;

/// Why a value was not written as the type that the server expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// Only the server can read its text as that type.
    AsText,
    /// It is of another type.
    Never,
}

/// Writes a value as the type that the server expects. `None` is NULL.
pub(super) fn encode(value: &Value, codec: Codec) -> Result<Option<Vec<u8>>, Unfit> {
    if matches!(value, Value::Null) {
        return Ok(None);
    }
    let bytes = match codec {
        Codec::Scalar(kind) => bytes_of(value, kind),
        Codec::Array { element, oid } => arrays::encode(value, element, oid),
        Codec::None => None,
    };
    bytes.map(Some).ok_or_else(|| if may_be_text(value, codec) { Unfit::AsText } else { Unfit::Never })
}

/// True where the server may read the text of a value as the type, though the host cannot.
fn may_be_text(value: &Value, codec: Codec) -> bool {
    match (value, codec) {
        (Value::Text(_) | Value::Other(_), Codec::None | Codec::Array { .. }) => true,
        // Such as the far dates that arrive as `other`.
        (Value::Other(_), Codec::Scalar(kind)) => {
            matches!(kind, Kind::Date | Kind::Time | Kind::Timestamp | Kind::Instant)
        }
        (_, Codec::None) => is_array(value),
        _ => false,
    }
}

/// The text by which the server reads a value as any type, where it has one.
pub(super) fn text_form(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) | Value::Other(text) => Some(text.clone()),
        _ => arrays::literal(value),
    }
}

fn is_array(value: &Value) -> bool {
    matches!(
        value,
        Value::BooleanArray(_) | Value::IntegerArray(_) | Value::FloatArray(_) | Value::TextArray(_)
    )
}

/// The refusal of parameter `number` (from 1), with the cast to write.
pub(super) fn refuse(number: usize, value: &Value, codec: Codec, type_name: &str) -> Error {
    let given = error::describe(value);
    let advice = match codec {
        Codec::None => format!("pass a text and write `${number}::text::{type_name}`"),
        _ => format!("pass a value of that type, or a text and write `${number}::text::{type_name}`"),
    };
    let message =
        format!("parameter ${number} is of type {type_name} here and cannot take {given}: {advice}");
    error::new(ErrorKind::Conversion, message)
}

/// The bytes of a scalar that is not NULL.
pub(super) fn bytes_of(value: &Value, kind: Kind) -> Option<Vec<u8>> {
    Some(match kind {
        Kind::Bool => vec![u8::from(boolean(value)?)],
        Kind::Bytes => match value {
            Value::Bytes(bytes) => bytes.clone(),
            _ => return None,
        },
        Kind::Int2 => i16::try_from(integer(value)?).ok()?.to_be_bytes().to_vec(),
        Kind::Int4 => i32::try_from(integer(value)?).ok()?.to_be_bytes().to_vec(),
        Kind::Int8 => integer(value)?.to_be_bytes().to_vec(),
        Kind::Unsigned => u32::try_from(integer(value)?).ok()?.to_be_bytes().to_vec(),
        Kind::Float4 => float4(float(value)?)?.to_be_bytes().to_vec(),
        Kind::Float8 => float(value)?.to_be_bytes().to_vec(),
        Kind::Numeric => numeric::encode(&match value {
            Value::Integer(_) | Value::Float(_) | Value::Decimal(_) | Value::Text(_) | Value::Other(_) => {
                text(value)?
            }
            _ => return None,
        })?,
        Kind::Text => text(value)?.into_bytes(),
        Kind::Label | Kind::Char => match value {
            Value::Text(text) | Value::Other(text) => text.clone().into_bytes(),
            _ => return None,
        },
        Kind::Date => date(value)?.to_be_bytes().to_vec(),
        Kind::Time => time(value)?.to_be_bytes().to_vec(),
        Kind::Timestamp | Kind::Instant => moment(value, kind)?.to_be_bytes().to_vec(),
        Kind::Uuid => match value {
            Value::Uuid(text) | Value::Text(text) | Value::Other(text) => {
                uuid::Uuid::parse_str(text).ok()?.as_bytes().to_vec()
            }
            _ => return None,
        },
        Kind::Json => json(value)?.as_bytes().to_vec(),
        // The number of the format's version, then the text.
        Kind::Jsonb => [&[1], json(value)?.as_bytes()].concat(),
        Kind::Void => return None,
    })
}

fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Boolean(value) => Some(*value),
        Value::Text(text) | Value::Other(text) => text.parse().ok(),
        _ => None,
    }
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(value) => Some(*value),
        Value::Text(text) | Value::Other(text) | Value::Decimal(text) => text.parse().ok(),
        _ => None,
    }
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Float(value) => Some(*value),
        // Not every integer beyond 2^53 is a float, and none may change on its way.
        Value::Integer(value) => {
            let exact = value.unsigned_abs() <= 1 << f64::MANTISSA_DIGITS;
            exact.then_some(*value as f64)
        }
        Value::Decimal(text) | Value::Text(text) | Value::Other(text) => text.parse().ok(),
        _ => None,
    }
}

/// Rounds as PostgreSQL's own cast does, which refuses to make an infinity of a number.
fn float4(value: f64) -> Option<f32> {
    let rounded = value as f32;
    (rounded.is_finite() || !value.is_finite()).then_some(rounded)
}

/// The text of any value but bytes and arrays.
pub(super) fn text(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null
        | Value::Bytes(_)
        | Value::BooleanArray(_)
        | Value::IntegerArray(_)
        | Value::FloatArray(_)
        | Value::TextArray(_) => return None,
        Value::Boolean(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Float(value) if value.is_infinite() => {
            if *value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
        }
        Value::Float(value) => value.to_string(),
        Value::Date(days) => civil::date_text((*days).into()),
        Value::Time(micros) => civil::time_text(*micros),
        Value::Timestamp(micros) => civil::timestamp_text(*micros, ""),
        Value::Instant(micros) => civil::timestamp_text(*micros, "+00"),
        Value::Decimal(text)
        | Value::Text(text)
        | Value::Uuid(text)
        | Value::Json(text)
        | Value::Other(text) => text.clone(),
    })
}

fn json(value: &Value) -> Option<&str> {
    match value {
        Value::Json(text) | Value::Text(text) | Value::Other(text) => Some(text),
        _ => None,
    }
}

fn date(value: &Value) -> Option<i32> {
    let days = match value {
        Value::Date(days) => i64::from(*days),
        Value::Text(text) | Value::Other(text) => match infinity(text) {
            Some(positive) => return Some(if positive { i32::MAX } else { i32::MIN }),
            None => civil::parse_date(text)?,
        },
        _ => return None,
    };
    // The ends of the range stand for the infinities, and are no dates.
    i32::try_from(days - EPOCH_DAYS).ok().filter(|days| *days != i32::MAX && *days != i32::MIN)
}

fn time(value: &Value) -> Option<i64> {
    match value {
        Value::Time(micros) => Some(*micros),
        Value::Text(text) | Value::Other(text) => civil::parse_time(text),
        _ => None,
    }
}

/// Microseconds since 2000-01-01. A moment of one kind is never taken for the other: which
/// zone would be meant is not for the host to guess.
fn moment(value: &Value, kind: Kind) -> Option<i64> {
    let micros = match (value, kind) {
        (Value::Timestamp(micros), Kind::Timestamp) | (Value::Instant(micros), Kind::Instant) => *micros,
        (Value::Text(text) | Value::Other(text), _) => match infinity(text) {
            Some(positive) => return Some(if positive { i64::MAX } else { i64::MIN }),
            None if kind == Kind::Instant => civil::parse_instant(text)?,
            None => civil::parse_timestamp(text)?,
        },
        _ => return None,
    };
    micros.checked_sub(EPOCH_MICROS).filter(|micros| *micros != i64::MAX && *micros != i64::MIN)
}

fn infinity(text: &str) -> Option<bool> {
    match text {
        "infinity" => Some(true),
        "-infinity" => Some(false),
        _ => None,
    }
}

/// Reads the bytes of a column. `None` where they are malformed, or of a type that is not
/// carried.
pub(super) fn decode(bytes: &[u8], codec: Codec) -> Option<Value> {
    match codec {
        Codec::Scalar(kind) => scalar_of(bytes, kind),
        Codec::Array { element, .. } => arrays::decode(bytes, element),
        Codec::None => None,
    }
}

/// The refusal of a column, with the cast to write.
pub(super) fn unreadable(column: &str, type_name: &str) -> Error {
    let message = format!(
        "column `{column}` is of type {type_name}, which this interface does not carry: write \
         `{column}::text` in the statement"
    );
    error::new(ErrorKind::Conversion, message)
}

/// The value of a scalar that is not NULL. `None` where the bytes are malformed.
pub(super) fn scalar_of(bytes: &[u8], kind: Kind) -> Option<Value> {
    Some(match kind {
        Kind::Bool => Value::Boolean(*bytes.first()? != 0),
        Kind::Bytes => Value::Bytes(bytes.to_vec()),
        Kind::Int2 => Value::Integer(i16::from_be_bytes(bytes.try_into().ok()?).into()),
        Kind::Int4 => Value::Integer(i32::from_be_bytes(bytes.try_into().ok()?).into()),
        Kind::Int8 => Value::Integer(i64::from_be_bytes(bytes.try_into().ok()?)),
        Kind::Unsigned => Value::Integer(u32::from_be_bytes(bytes.try_into().ok()?).into()),
        Kind::Float4 => Value::Float(f32::from_be_bytes(bytes.try_into().ok()?).into()),
        Kind::Float8 => Value::Float(f64::from_be_bytes(bytes.try_into().ok()?)),
        Kind::Numeric => Value::Decimal(numeric::decode(bytes)?),
        Kind::Text => Value::Text(utf8(bytes)?),
        Kind::Label => Value::Other(utf8(bytes)?),
        // As the server's `charout` writes it.
        Kind::Char => Value::Other(match *bytes {
            [] | [0] => String::new(),
            [byte] if byte.is_ascii() => char::from(byte).to_string(),
            [byte] => format!("\\{byte:03o}"),
            _ => return None,
        }),
        Kind::Void => Value::Other(String::new()),
        Kind::Date => match i32::from_be_bytes(bytes.try_into().ok()?) {
            i32::MAX => Value::Other("infinity".to_owned()),
            i32::MIN => Value::Other("-infinity".to_owned()),
            days => {
                let days = i64::from(days) + EPOCH_DAYS;
                i32::try_from(days).map_or_else(|_| Value::Other(civil::date_text(days)), Value::Date)
            }
        },
        Kind::Time => Value::Time(i64::from_be_bytes(bytes.try_into().ok()?)),
        Kind::Timestamp => moment_of(bytes, "", Value::Timestamp)?,
        Kind::Instant => moment_of(bytes, "+00", Value::Instant)?,
        Kind::Uuid => Value::Uuid(uuid::Uuid::from_slice(bytes).ok()?.to_string()),
        Kind::Json => Value::Json(utf8(bytes)?),
        Kind::Jsonb => match bytes.split_first()? {
            (1, text) => Value::Json(utf8(text)?),
            _ => return None,
        },
    })
}

/// `value` of the microseconds since 1970, or the text of what does not fit: the infinities,
/// and the last years that PostgreSQL can count from 2000 but nobody from 1970.
fn moment_of(bytes: &[u8], zone: &str, value: fn(i64) -> Value) -> Option<Value> {
    Some(match i64::from_be_bytes(bytes.try_into().ok()?) {
        i64::MAX => Value::Other("infinity".to_owned()),
        i64::MIN => Value::Other("-infinity".to_owned()),
        micros => match micros.checked_add(EPOCH_MICROS) {
            Some(micros) => value(micros),
            None => Value::Other(far_moment(micros, zone)),
        },
    })
}

fn far_moment(since_2000: i64, zone: &str) -> String {
    const DAY: i64 = 86_400_000_000;
    let date = civil::date_text(since_2000.div_euclid(DAY) + EPOCH_DAYS);
    format!("{date} {}{zone}", civil::time_text(since_2000.rem_euclid(DAY)))
}

fn utf8(bytes: &[u8]) -> Option<String> {
    Some(std::str::from_utf8(bytes).ok()?.to_owned())
}
