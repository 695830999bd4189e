//! What can go wrong with a statement.

use std::fmt;

use crate::bindings::innkeeper::plugin::db as wit;

pub use wit::ErrorKind;

/// Why a statement or a transaction failed, the same on every engine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Error {
    /// What kind of error it is.
    pub kind: ErrorKind,
    /// The database's message, or the host's.
    pub message: String,
    /// SQLSTATE on PostgreSQL, the extended result code on SQLite.
    pub code: Option<String>,
    /// More about what happened, by the database.
    pub detail: Option<String>,
    /// What to do about it, by the database.
    pub hint: Option<String>,
    /// The constraint that refused the change.
    pub constraint: Option<String>,
    /// Where in the statement: the number of the character, from 1.
    pub position: Option<u32>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            code: None,
            detail: None,
            hint: None,
            constraint: None,
            position: None,
        }
    }

    /// True when the transaction lost to another one (serialization failure, deadlock, SQLite
    /// busy). Running the whole transaction again may succeed.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.kind == ErrorKind::Conflict
    }

    /// True when the same statement may succeed at another time.
    pub(crate) fn may_succeed_later(&self) -> bool {
        match self.kind {
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
            | ErrorKind::LimitExceeded
            | ErrorKind::Conversion
            | ErrorKind::Closed => false,
        }
    }
}

impl From<wit::Error> for Error {
    fn from(error: wit::Error) -> Self {
        let wit::Error { kind, message, code, detail, hint, constraint, position } = error;
        Self { kind, message, code, detail, hint, constraint, position }
    }
}

/// In one line, with everything that helps to find the cause.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.message, self.kind.as_str())?;
        if let Some(code) = &self.code {
            write!(f, ", code {code}")?;
        }
        if let Some(constraint) = &self.constraint {
            write!(f, ", constraint {constraint}")?;
        }
        if let Some(position) = self.position {
            write!(f, ", at character {position} of the statement")?;
        }
        f.write_str(")")?;
        if let Some(detail) = &self.detail {
            write!(f, "; detail: {detail}")?;
        }
        if let Some(hint) = &self.hint {
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
        let mut error = Error::new(ErrorKind::Conflict, "deadlock detected");
        assert_eq!(error.to_string(), "deadlock detected (conflict)");
        error.kind = ErrorKind::UniqueViolation;
        error.message = "duplicate key".into();
        error.code = Some("23505".into());
        error.constraint = Some("users_pkey".into());
        error.position = Some(8);
        error.detail = Some("Key (id)=(1) already exists.".into());
        error.hint = Some("Use another.".into());
        assert_eq!(
            error.to_string(),
            "duplicate key (unique-violation, code 23505, constraint users_pkey, \
             at character 8 of the statement); detail: Key (id)=(1) already exists.; hint: Use another."
        );
    }
}
