//! What operators call things: jobs, plugins, databases, queues.
//!
//! Pure: no I/O, no clock.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The name of a job, a plugin or a database: a letter or digit, then letters, digits,
/// `-`, `_` and `.`, at most 100 characters of ASCII.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is no [`Name`].
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is not a name: use a letter or digit first, then letters, digits, `-`, `_` and `.`, \
     at most 100 characters"
)]
pub struct InvalidName(String);

impl Name {
    /// Checks a name.
    ///
    /// # Errors
    /// Where the text does not have the form of a name.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidName> {
        let name = name.into();
        let first_is_fine = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        let all_are_fine = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if first_is_fine && all_are_fine && name.len() <= 100 {
            Ok(Self(name))
        } else {
            Err(InvalidName(name))
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names stand in the order of their texts.
impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Name {
    type Err = InvalidName;
    fn from_str(name: &str) -> Result<Self, InvalidName> {
        Self::new(name)
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;
    fn try_from(name: String) -> Result<Self, InvalidName> {
        Self::new(name)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_plain_ascii_and_starts_with_a_letter_or_digit() {
        for good in ["a", "session-cleanup", "7days", "a.b_c-d"] {
            assert_eq!(Name::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "-a", ".a", "a b", "zażółć", "a/b", &"a".repeat(101)] {
            assert!(Name::new(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
