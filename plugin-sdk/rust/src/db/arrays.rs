//! Arrays: Rust's lists to and from the arrays of PostgreSQL.
//!
//! SQLite has no arrays: pass JSON there, such as `serde_json::json!(ids)`, and read it in the
//! statement with `json_each`.

use super::value::mismatch;
use super::{FromValue, Value};

/// What the list that a [`Value`] is made of can hold: booleans, integers, floats, texts, and
/// [`Option`]s of them for NULL.
///
/// `Vec<u8>` and `&[u8]` are bytes, not arrays.
pub trait ArrayElement: Sized {
    /// The array of these elements.
    fn into_array(elements: impl Iterator<Item = Self>) -> Value;
}

macro_rules! array_elements {
    ($($type:ty => $case:ident(|$value:ident| $into:expr);)+) => {
        $(
            impl ArrayElement for $type {
                fn into_array(elements: impl Iterator<Item = Self>) -> Value {
                    Value::$case(elements.map(|$value| Some($into)).collect())
                }
            }

            impl ArrayElement for Option<$type> {
                fn into_array(elements: impl Iterator<Item = Self>) -> Value {
                    Value::$case(elements.map(|element| element.map(|$value| $into)).collect())
                }
            }
        )+
    };
}

array_elements! {
    bool => BooleanArray(|value| value);
    i16 => IntegerArray(|value| value.into());
    i32 => IntegerArray(|value| value.into());
    i64 => IntegerArray(|value| value);
    u16 => IntegerArray(|value| value.into());
    u32 => IntegerArray(|value| value.into());
    f32 => FloatArray(|value| value.into());
    f64 => FloatArray(|value| value);
    String => TextArray(|value| value);
    &str => TextArray(|value| value.to_owned());
}

impl<T: ArrayElement> From<Vec<T>> for Value {
    fn from(elements: Vec<T>) -> Self {
        T::into_array(elements.into_iter())
    }
}

impl<T: ArrayElement + Clone> From<&Vec<T>> for Value {
    fn from(elements: &Vec<T>) -> Self {
        T::into_array(elements.iter().cloned())
    }
}

impl<T: ArrayElement + Clone> From<&[T]> for Value {
    fn from(elements: &[T]) -> Self {
        T::into_array(elements.iter().cloned())
    }
}

impl<T: ArrayElement, const N: usize> From<[T; N]> for Value {
    fn from(elements: [T; N]) -> Self {
        T::into_array(elements.into_iter())
    }
}

impl<T: ArrayElement + Clone, const N: usize> From<&[T; N]> for Value {
    fn from(elements: &[T; N]) -> Self {
        T::into_array(elements.iter().cloned())
    }
}

macro_rules! from_arrays {
    ($($type:ty => $case:ident($expected:literal, |$value:ident| $from:expr);)+) => {
        $(
            impl<'a> FromValue<'a> for Vec<Option<$type>> {
                fn from_value(value: &'a Value) -> Result<Self, String> {
                    let Value::$case(elements) = value else { return Err(mismatch($expected, value)) };
                    elements.iter().map(|element| element.as_ref().map(|$value| $from).transpose()).collect()
                }
            }

            impl<'a> FromValue<'a> for Vec<$type> {
                fn from_value(value: &'a Value) -> Result<Self, String> {
                    Vec::<Option<$type>>::from_value(value)?.into_iter().map(without_null).collect()
                }
            }
        )+
    };
}

from_arrays! {
    bool => BooleanArray("an array of booleans", |value| Ok(*value));
    i16 => IntegerArray("an array of integers", |value| narrow(*value, "i16"));
    i32 => IntegerArray("an array of integers", |value| narrow(*value, "i32"));
    i64 => IntegerArray("an array of integers", |value| Ok(*value));
    u16 => IntegerArray("an array of integers", |value| narrow(*value, "u16"));
    u32 => IntegerArray("an array of integers", |value| narrow(*value, "u32"));
    f64 => FloatArray("an array of floats", |value| Ok(*value));
    String => TextArray("an array of texts", |value| Ok(value.clone()));
    &'a str => TextArray("an array of texts", |value| Ok(value.as_str()));
}

fn narrow<T: TryFrom<i64>>(value: i64, name: &str) -> Result<T, String> {
    T::try_from(value).map_err(|_| format!("{value} does not fit {name}"))
}

fn without_null<T>(element: Option<T>) -> Result<T, String> {
    element.ok_or_else(|| "the array holds NULL; read it as `Vec<Option<…>>` if that is expected".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_arrays_and_bytes_stay_bytes() {
        assert_eq!(Value::from(vec![1_i64, 2]), Value::IntegerArray(vec![Some(1), Some(2)]));
        assert_eq!(Value::from([1_i16].as_slice()), Value::IntegerArray(vec![Some(1)]));
        assert_eq!(Value::from(&vec![Some(true), None]), Value::BooleanArray(vec![Some(true), None]));
        assert_eq!(Value::from([0.5]), Value::FloatArray(vec![Some(0.5)]));
        let names = ["a".to_owned()];
        assert_eq!(Value::from(&names), Value::TextArray(vec![Some("a".into())]));
        assert_eq!(Value::from(vec!["a", "b"]), Value::TextArray(vec![Some("a".into()), Some("b".into())]));
        assert_eq!(Value::from(Vec::<i64>::new()), Value::IntegerArray(vec![]));
        assert_eq!(Value::from(None::<Vec<i64>>), Value::Null);
        assert_eq!(Value::from(vec![1_u8]), Value::Bytes(vec![1]));
        assert_eq!(Value::from([1_u8].as_slice()), Value::Bytes(vec![1]));
        assert_eq!(Value::from(&vec![1_u8]), Value::Bytes(vec![1]));
        assert_eq!(Value::from(b"x"), Value::Bytes(vec![b'x']));
    }

    #[test]
    fn arrays_are_read_as_lists() {
        let numbers = Value::IntegerArray(vec![Some(1), None]);
        assert_eq!(Vec::<Option<i64>>::from_value(&numbers), Ok(vec![Some(1), None]));
        assert!(Vec::<i64>::from_value(&numbers).unwrap_err().contains("holds NULL"));
        let words = Value::TextArray(vec![Some("a".into())]);
        assert_eq!(Vec::<&str>::from_value(&words), Ok(vec!["a"]));
        assert_eq!(Vec::<String>::from_value(&words), Ok(vec!["a".to_owned()]));
        assert_eq!(Option::<Vec<bool>>::from_value(&Value::Null), Ok(None));
        assert_eq!(Vec::<u8>::from_value(&Value::Bytes(vec![1])), Ok(vec![1]));
    }

    #[test]
    fn what_is_no_such_array_is_said() {
        let refused = Vec::<i16>::from_value(&Value::IntegerArray(vec![Some(40_000)])).unwrap_err();
        assert_eq!(refused, "40000 does not fit i16");
        let refused = Vec::<i64>::from_value(&Value::TextArray(vec![])).unwrap_err();
        assert_eq!(refused, "expected an array of integers, found an array of texts");
    }
}
