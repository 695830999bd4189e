//! How a handler says that it failed.

use std::any::Any;
use std::fmt;
use std::time::Duration;

use crate::bindings::innkeeper::plugin::types;
use crate::{config, db, jobs};

/// A handler's word that it failed, and whether trying again may help.
///
/// Every `std` error converts into a failure, so that `?` works in a handler. The message is
/// that of the error and of its sources. It is retryable, up to the attempts that the job
/// allows, but for the errors that come out the same however often they are tried:
///
/// | Error | Failure |
/// |---|---|
/// | [`db::Error`] of a conflict, a time-out, a busy pool, a lost connection, the limit of statements at once, or of a kind not known better ([`is_retryable`](db::Error::is_retryable)) | retryable |
/// | any other [`db::Error`]: constraints, refused statements and rights, other limits, conversions, what has ended | permanent |
/// | [`jobs::Error`]: no such job, arguments that do not fit, not granted | permanent |
/// | [`config::Error`] of a value that is not valid | permanent |
/// | [`serde_json::Error`] | permanent |
/// | every other error | retryable |
///
/// Where that is not what is meant, say it: `.map_err(|e| Failure::permanent(e.to_string()))?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// May succeed when tried again, by the job's retry policy.
    Retryable(String),
    /// As `Retryable`, but not before this much time has passed.
    RetryAfter(String, Duration),
    /// Will not succeed however often it is tried.
    Permanent(String),
}

impl Failure {
    /// May succeed when tried again, by the job's retry policy.
    pub fn retryable(message: impl Into<String>) -> Self {
        Self::Retryable(message.into())
    }

    /// May succeed when tried again, but not before `wait` has passed. The host keeps
    /// milliseconds; the job's retry policy may make it wait longer.
    pub fn retry_after(message: impl Into<String>, wait: Duration) -> Self {
        Self::RetryAfter(message.into(), wait)
    }

    /// Will not succeed however often it is tried.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::Permanent(message.into())
    }

    /// What happened.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::Retryable(message) | Self::RetryAfter(message, _) | Self::Permanent(message) => message,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

/// `Failure` is no `std` error itself, which this would conflict with.
impl<E: std::error::Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let message = with_sources(&error);
        if is_permanent(&error) { Self::Permanent(message) } else { Self::Retryable(message) }
    }
}

impl From<Failure> for types::Failure {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Retryable(message) => Self::Retryable(message),
            Failure::RetryAfter(message, wait) => {
                Self::RetryAfter((message, u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)))
            }
            Failure::Permanent(message) => Self::Permanent(message),
        }
    }
}

fn is_permanent(error: &dyn Any) -> bool {
    if let Some(error) = error.downcast_ref::<db::Error>() {
        return !error.is_retryable();
    }
    if let Some(error) = error.downcast_ref::<jobs::Error>() {
        return !matches!(error, jobs::Error::Other(_));
    }
    if let Some(error) = error.downcast_ref::<config::Error>() {
        return matches!(error, config::Error::Invalid { .. });
    }
    error.is::<serde_json::Error>()
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        message = format!("{message}: {error}");
        source = error.source();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::ErrorKind;

    #[test]
    fn a_database_error_is_retryable_when_running_it_again_may_help() {
        use ErrorKind::{Busy, Conflict, Connection, Other, Timeout};
        for kind in [Busy, Conflict, Connection, Other, Timeout] {
            let failure = Failure::from(db::Error::new(kind, "m"));
            assert!(matches!(failure, Failure::Retryable(_)), "{kind:?}");
        }
        use ErrorKind::{
            CheckViolation, Closed, Conversion, Denied, ExclusionViolation, ForeignKeyViolation,
            LimitExceeded, NotNullViolation, Statement, UniqueViolation,
        };
        for kind in [
            CheckViolation,
            Closed,
            Conversion,
            Denied,
            ExclusionViolation,
            ForeignKeyViolation,
            LimitExceeded,
            NotNullViolation,
            Statement,
            UniqueViolation,
        ] {
            let failure = Failure::from(db::Error::new(kind, "m"));
            assert!(matches!(failure, Failure::Permanent(_)), "{kind:?}");
        }
        let crowded = db::Error::new(LimitExceeded, "2 are allowed at a time (`max_running_statements`)");
        assert!(matches!(Failure::from(crowded), Failure::Retryable(_)));
    }

    #[test]
    fn other_errors_are_retryable_but_for_json_and_for_what_the_operator_must_change() {
        let json = serde_json::from_str::<u8>("x").unwrap_err();
        assert!(matches!(Failure::from(json), Failure::Permanent(_)));
        assert!(matches!(Failure::from(jobs::Error::Denied("m".into())), Failure::Permanent(_)));
        assert!(matches!(Failure::from(jobs::Error::Other("m".into())), Failure::Retryable(_)));
        let unavailable = config::Error::Unavailable("m".into());
        assert!(matches!(Failure::from(unavailable), Failure::Retryable(_)));
        assert!(matches!(Failure::from(std::io::Error::other("m")), Failure::Retryable(_)));
    }

    #[test]
    fn the_message_names_the_sources_of_the_error() {
        #[derive(Debug)]
        struct Outer(std::num::ParseIntError);
        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the answer is unreadable")
            }
        }
        impl std::error::Error for Outer {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }
        let failure = Failure::from(Outer("x".parse::<u8>().unwrap_err()));
        assert_eq!(failure.message(), "the answer is unreadable: invalid digit found in string");
    }

    #[test]
    fn a_wait_reaches_the_host_in_milliseconds() {
        let failure = Failure::retry_after("m", Duration::from_micros(1_500_900));
        assert_eq!(types::Failure::from(failure), types::Failure::RetryAfter(("m".into(), 1500)));
        let failure = Failure::retry_after("m", Duration::MAX);
        assert_eq!(types::Failure::from(failure), types::Failure::RetryAfter(("m".into(), u64::MAX)));
    }
}
