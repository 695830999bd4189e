//! PostgreSQL's arrays on the wire, and as text.
//!
//! Pure. The binary form is that of `array_send` in the server's `arrayfuncs.c`: the number of
//! dimensions, a flag, the element type, the length and the lower bound of each dimension, and
//! then every element with its length before it.

use super::types::Kind;
use super::values;
use crate::interfaces::db::Value;

/// Reads an array. One with a single dimension that counts from 1 becomes an array of `value`;
/// of any other shape there is only the text. `None` where it is malformed.
pub(super) fn decode(bytes: &[u8], element: Kind) -> Option<Value> {
    let mut reader = Reader(bytes);
    let dimensions = usize::try_from(reader.int()?).ok().filter(|count| *count <= 6)?;
    let (_flag, _element_type) = (reader.int()?, reader.int()?);
    let mut shape = Vec::with_capacity(dimensions);
    for _ in 0..dimensions {
        shape.push((usize::try_from(reader.int()?).ok()?, reader.int()?));
    }
    if !matches!(shape.as_slice(), [] | [(_, 1)]) {
        return text_of(reader, &shape, element).map(Value::Other);
    }
    let count = shape.first().map_or(0, |(length, _)| *length);
    Some(match element {
        Kind::Bool => Value::BooleanArray(reader.elements(count, element, |value| match value {
            Value::Boolean(value) => Some(value),
            _ => None,
        })?),
        Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Unsigned => {
            Value::IntegerArray(reader.elements(count, element, |value| match value {
                Value::Integer(value) => Some(value),
                _ => None,
            })?)
        }
        Kind::Float4 | Kind::Float8 => {
            Value::FloatArray(reader.elements(count, element, |value| match value {
                Value::Float(value) => Some(value),
                _ => None,
            })?)
        }
        Kind::Text | Kind::Label => {
            Value::TextArray(reader.elements(count, element, |value| match value {
                Value::Text(value) | Value::Other(value) => Some(value),
                _ => None,
            })?)
        }
        _ => return None,
    })
}

/// Writes an array of elements of the type with the number `oid`. `None` where an element does
/// not fit, or the value is no array.
pub(super) fn encode(value: &Value, element: Kind, oid: u32) -> Option<Vec<u8>> {
    let elements = elements_of(value)?;
    let count = i32::try_from(elements.len()).ok()?;
    let mut bytes = Vec::with_capacity(20 + elements.len() * 12);
    let has_nulls = i32::from(elements.iter().any(|element| matches!(element, Value::Null)));
    let dimensions = i32::from(count > 0);
    for word in [dimensions, has_nulls, oid.cast_signed()] {
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    if count > 0 {
        bytes.extend_from_slice(&count.to_be_bytes());
        bytes.extend_from_slice(&1_i32.to_be_bytes());
    }
    for value in &elements {
        if matches!(value, Value::Null) {
            bytes.extend_from_slice(&(-1_i32).to_be_bytes());
            continue;
        }
        let encoded = values::bytes_of(value, element)?;
        bytes.extend_from_slice(&i32::try_from(encoded.len()).ok()?.to_be_bytes());
        bytes.extend_from_slice(&encoded);
    }
    Some(bytes)
}

/// The server's text form of an array of `value`, for types that are only written as text.
pub(super) fn literal(value: &Value) -> Option<String> {
    let mut text = String::from("{");
    for (index, element) in elements_of(value)?.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        match element {
            Value::Null => text.push_str("NULL"),
            other => push_quoted(&mut text, &values::text(other)?),
        }
    }
    text.push('}');
    Some(text)
}

fn elements_of(value: &Value) -> Option<Vec<Value>> {
    fn each<T: Clone>(elements: &[Option<T>], value: fn(T) -> Value) -> Vec<Value> {
        elements.iter().map(|element| element.clone().map_or(Value::Null, value)).collect()
    }
    Some(match value {
        Value::BooleanArray(elements) => each(elements, Value::Boolean),
        Value::IntegerArray(elements) => each(elements, Value::Integer),
        Value::FloatArray(elements) => each(elements, Value::Float),
        Value::TextArray(elements) => each(elements, Value::Text),
        _ => return None,
    })
}

/// What is left of the bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn int(&mut self) -> Option<i32> {
        let (word, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(i32::from_be_bytes(*word))
    }

    /// The bytes of the next element, or `None` inside for NULL.
    fn element(&mut self) -> Option<Option<&'a [u8]>> {
        let length = self.int()?;
        if length == -1 {
            return Some(None);
        }
        let (element, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(Some(element))
    }

    fn elements<T>(
        mut self,
        count: usize,
        kind: Kind,
        unwrap: impl Fn(Value) -> Option<T>,
    ) -> Option<Vec<Option<T>>> {
        // Each takes four bytes at least: a count that is a lie allocates nothing.
        let mut elements = Vec::with_capacity(count.min(self.0.len() / 4));
        for _ in 0..count {
            elements.push(match self.element()? {
                None => None,
                Some(bytes) => Some(unwrap(values::scalar_of(bytes, kind)?)?),
            });
        }
        self.0.is_empty().then_some(elements)
    }
}

/// The server's text form, `[0:1]={1,2}` or `{{1,2},{3,4}}`, by its `array_out`.
fn text_of(mut reader: Reader<'_>, shape: &[(usize, i32)], kind: Kind) -> Option<String> {
    let mut text = String::new();
    if shape.iter().any(|(_, lower)| *lower != 1) {
        for (length, lower) in shape {
            let upper = i64::from(*lower) + i64::try_from(*length).ok()? - 1;
            text.push_str(&format!("[{lower}:{upper}]"));
        }
        text.push('=');
    }
    push_dimension(&mut text, &mut reader, shape, kind)?;
    reader.0.is_empty().then_some(text)
}

fn push_dimension(
    text: &mut String,
    reader: &mut Reader<'_>,
    shape: &[(usize, i32)],
    kind: Kind,
) -> Option<()> {
    let Some(((length, _), inner)) = shape.split_first() else {
        match reader.element()? {
            None => text.push_str("NULL"),
            Some(bytes) => match (values::scalar_of(bytes, kind)?, kind) {
                (Value::Boolean(value), _) => text.push(if value { 't' } else { 'f' }),
                (Value::Float(value), _) => text.push_str(&float_text(value, kind)),
                (Value::Text(value) | Value::Other(value), _) => push_element(text, &value),
                (value, _) => text.push_str(&values::text(&value)?),
            },
        }
        return Some(());
    };
    text.push('{');
    for index in 0..*length {
        if index > 0 {
            text.push(',');
        }
        push_dimension(text, reader, inner, kind)?;
    }
    text.push('}');
    Some(())
}

/// Quoted only where the server does so.
fn push_element(text: &mut String, element: &str) {
    let special =
        |c: char| matches!(c, '"' | '\\' | '{' | '}' | ',' | ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c');
    if element.is_empty() || element.eq_ignore_ascii_case("NULL") || element.contains(special) {
        push_quoted(text, element);
    } else {
        text.push_str(element);
    }
}

fn push_quoted(text: &mut String, element: &str) {
    text.push('"');
    for c in element.chars() {
        if matches!(c, '"' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
}

/// The shortest digits that are read as the same number, in the server's notation
/// (`double_to_shortest_decimal_buf`).
fn float_text(value: f64, kind: Kind) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let (scientific, plain, plain_below) = match kind {
        Kind::Float4 => (format!("{:e}", value as f32), format!("{}", value as f32), 6),
        _ => (format!("{value:e}"), format!("{value}"), 15),
    };
    let Some((digits, exponent)) = scientific.split_once('e') else { return plain };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..plain_below).contains(&exponent) {
        return plain;
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INT4: (Kind, u32) = (Kind::Int4, 23);

    fn show(value: Option<Value>) -> String {
        format!("{value:?}")
    }

    #[test]
    fn arrays_come_back_as_they_went() {
        for (value, element) in [
            (Value::IntegerArray(vec![]), Kind::Int8),
            (Value::IntegerArray(vec![Some(i64::MIN), None, Some(i64::MAX)]), Kind::Int8),
            (Value::BooleanArray(vec![Some(true), None, Some(false)]), Kind::Bool),
            (Value::FloatArray(vec![None, Some(f64::NAN), Some(-0.0)]), Kind::Float8),
            (Value::TextArray(vec![Some(String::new()), None, Some("NULL".into())]), Kind::Text),
        ] {
            let bytes = encode(&value, element, 1).unwrap();
            assert_eq!(show(decode(&bytes, element)), show(Some(value)));
        }
    }

    #[test]
    fn an_element_that_does_not_fit_is_refused() {
        assert_eq!(encode(&Value::IntegerArray(vec![Some(1 << 40)]), INT4.0, INT4.1), None);
        assert_eq!(encode(&Value::TextArray(vec![Some("seven".into())]), INT4.0, INT4.1), None);
        assert_eq!(encode(&Value::Integer(1), INT4.0, INT4.1), None);
        assert!(encode(&Value::TextArray(vec![Some("7".into())]), INT4.0, INT4.1).is_some());
    }

    #[test]
    fn other_shapes_are_written_as_the_server_writes_them() {
        let words = |words: &[i32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
        let square = words(&[2, 0, 23, 2, 1, 2, 1, 4, 1, 4, 2, 4, 3, 4, 4]);
        assert_eq!(show(decode(&square, INT4.0)), show(Some(Value::Other("{{1,2},{3,4}}".into()))));
        let shifted = words(&[1, 1, 23, 2, 0, 4, 1, -1]);
        assert_eq!(show(decode(&shifted, INT4.0)), show(Some(Value::Other("[0:1]={1,NULL}".into()))));
    }

    #[test]
    fn literals_are_quoted() {
        let texts = Value::TextArray(vec![Some("a\"\\,b".into()), None, Some(String::new())]);
        assert_eq!(literal(&texts).unwrap(), r#"{"a\"\\,b",NULL,""}"#);
        assert_eq!(literal(&Value::Integer(1)), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _read = decode(&bytes, Kind::Int4);
        }

        #[test]
        fn any_counts_are_read_or_refused(words in proptest::collection::vec(-1..7_i32, 0..12)) {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            let _read = decode(&bytes, Kind::Int4);
        }
    }
}
