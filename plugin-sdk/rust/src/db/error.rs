//! What can go wrong with a statement.

use std::fmt;

use crate::bindings::innkeeper::plugin::db as wit;

pub use wit::ErrorKind;

/// Why a statement or a transaction failed, the same on every engine.
///
/// In text it is one line with everything that helps to find the cause.
#[derive(Clone, Debug, PartialEq)]
pub struct Error(Box<wit::Error>);

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::from(wit::Error {
            kind,
            message: message.into(),
            code: None,
            detail: None,
            hint: None,
            constraint: None,
            position: None,
        })
    }

    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The database's message, or the host's.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// SQLSTATE on PostgreSQL, the extended result code on SQLite.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// More about what happened, by the database.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// What to do about it, by the database.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The constraint that refused the change.
    #[must_use]
    pub fn constraint(&self) -> Option<&str> {
        self.0.constraint.as_deref()
    }

    /// Where in the statement: the number of the character, from 1.
    #[must_use]
    pub fn position(&self) -> Option<u32> {
        self.0.position
    }

    /// True when the transaction lost to another one (serialization failure, deadlock, SQLite
    /// busy). Running the whole transaction again may succeed.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.kind() == ErrorKind::Conflict
    }

    /// True when the same may succeed at another time, with nothing changed: after a conflict, a
    /// time-out, a busy pool, a lost connection, an error of a kind not known better, and the
    /// limit of statements at once. A [`Failure`](crate::Failure) made of the error is retryable then.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self.kind() {
            ErrorKind::Conflict
            | ErrorKind::Timeout
            | ErrorKind::Busy
            | ErrorKind::Connection
            | ErrorKind::Other => true,
            ErrorKind::UniqueViolation
            | ErrorKind::ForeignKeyViolation
            | ErrorKind::NotNullViolation
            | ErrorKind::CheckViolation
            | ErrorKind::ExclusionViolation
            | ErrorKind::Statement
            | ErrorKind::Denied
            | ErrorKind::Conversion
            | ErrorKind::Closed => false,
            // Every message names its limit. This one is over all executions of the plugin, and
            // says only that there are many at this moment.
            ErrorKind::LimitExceeded => self.message().contains("max_running_statements"),
        }
    }
}

impl From<wit::Error> for Error {
    fn from(error: wit::Error) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.message(), self.kind().as_str())?;
        if let Some(code) = self.code() {
            write!(f, ", code {code}")?;
        }
        if let Some(constraint) = self.constraint() {
            write!(f, ", constraint {constraint}")?;
        }
        if let Some(position) = self.position() {
            write!(f, ", at character {position} of the statement")?;
        }
        f.write_str(")")?;
        if let Some(detail) = self.detail() {
            write!(f, "; detail: {detail}")?;
        }
        if let Some(hint) = self.hint() {
            write!(f, "; hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl ErrorKind {
    /// The kind as it is written in the plugin interface, such as `"unique-violation"`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UniqueViolation => "unique-violation",
            Self::ForeignKeyViolation => "foreign-key-violation",
            Self::NotNullViolation => "not-null-violation",
            Self::CheckViolation => "check-violation",
            Self::ExclusionViolation => "exclusion-violation",
            Self::Conflict => "conflict",
            Self::Timeout => "timeout",
            Self::Statement => "statement",
            Self::Denied => "denied",
            Self::LimitExceeded => "limit-exceeded",
            Self::Busy => "busy",
            Self::Connection => "connection",
            Self::Conversion => "conversion",
            Self::Closed => "closed",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_as_one_line_with_all_that_the_database_said() {
        let error = Error::new(ErrorKind::Conflict, "deadlock detected");
        assert_eq!(error.to_string(), "deadlock detected (conflict)");
        let error = Error::from(wit::Error {
            kind: ErrorKind::UniqueViolation,
            message: "duplicate key".into(),
            code: Some("23505".into()),
            detail: Some("Key (id)=(1) already exists.".into()),
            hint: Some("Use another.".into()),
            constraint: Some("users_pkey".into()),
            position: Some(8),
        });
        assert_eq!(
            error.to_string(),
            "duplicate key (unique-violation, code 23505, constraint users_pkey, \
             at character 8 of the statement); detail: Key (id)=(1) already exists.; hint: Use another."
        );
    }
}
