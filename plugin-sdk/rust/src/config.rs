//! The plugin's configuration, by `wasi:config`.
//!
//! The operator writes it in the plugin's section of the host's file. Tables become dotted keys
//! and every value becomes text: `config = { sessions = { table = "django_session" } }` is read
//! by `config::get("sessions.table")`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::bindings::wasi::config::store as wit;

/// The value of a key; `None` when the operator did not set it.
///
/// # Errors
/// [`Error::Unavailable`].
pub fn get(key: &str) -> Result<Option<String>, Error> {
    Ok(wit::get(key)?)
}

/// The value of a key, read as a number, a boolean or anything else that text can be parsed as.
///
/// ```no_run
/// # fn f() -> Result<(), innkeeper_sdk::config::Error> {
/// let batch_size: u32 = innkeeper_sdk::config::parse("batch_size")?.unwrap_or(1000);
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`Error::Invalid`] when the value cannot be parsed; [`Error::Unavailable`].
pub fn parse<T: FromStr<Err: fmt::Display>>(key: &str) -> Result<Option<T>, Error> {
    get(key)?.map(|value| parse_value(key, value)).transpose()
}

/// Every key with its value.
///
/// # Errors
/// [`Error::Unavailable`].
pub fn all() -> Result<BTreeMap<String, String>, Error> {
    Ok(wit::get_all()?.into_iter().collect())
}

fn parse_value<T: FromStr<Err: fmt::Display>>(key: &str, value: String) -> Result<T, Error> {
    value.parse().map_err(|error: T::Err| Error::Invalid {
        key: key.to_owned(),
        reason: error.to_string(),
        value,
    })
}

/// Why a value of the configuration could not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The host could not give it.
    Unavailable(String),
    /// The operator's value is not what the plugin needs.
    Invalid {
        /// The dotted key.
        key: String,
        /// What the operator wrote.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl From<wit::Error> for Error {
    fn from(error: wit::Error) -> Self {
        match error {
            wit::Error::Upstream(message) | wit::Error::Io(message) => Self::Unavailable(message),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(message) => write!(f, "the plugin's configuration is not available: {message}"),
            Self::Invalid { key, value, reason } => {
                write!(f, "{key} = {value:?} in the plugin's configuration is not valid: {reason}")
            }
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_does_not_parse_is_reported_with_its_key() {
        assert_eq!(parse_value::<u32>("n", "12".into()), Ok(12));
        let error = parse_value::<u32>("sessions.batch", "many".into()).unwrap_err().to_string();
        assert_eq!(
            error,
            "sessions.batch = \"many\" in the plugin's configuration is not valid: \
             invalid digit found in string"
        );
    }
}
