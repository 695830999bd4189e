//! What a guest is told when something goes wrong, the same on both engines.

use std::time::Duration;

use rusqlite::ffi as codes;
use sqlx::postgres::{PgDatabaseError, PgErrorPosition, PgSeverity};

use super::{Error, ErrorKind, Value, civil};
use crate::job::Name;

/// An error of the host's own: no code of a database, only words.
pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
    Error {
        kind,
        message: message.into(),
        code: None,
        detail: None,
        hint: None,
        constraint: None,
        position: None,
    }
}

/// The answer to every call after the end of its execution.
pub(super) fn execution_ended() -> Error {
    new(ErrorKind::Closed, "the execution has ended, and every transaction with it")
}

/// The answer to a statement that took longer than its grant allows.
pub(super) fn overdue(limit: Duration) -> Error {
    let limit = humantime::format_duration(limit);
    let message = format!("the statement ran longer than the plugin's `statement_timeout` of {limit}");
    new(ErrorKind::Timeout, message)
}

/// The answer to a commit that nobody has confirmed.
pub(super) fn in_doubt(why: &str) -> Error {
    let message =
        format!("the connection was lost during the commit, and whether it took effect is not known: {why}");
    new(ErrorKind::Connection, message)
}

/// The answer to a commit that the host does not send any more.
pub(super) fn too_late_to_commit() -> Error {
    let message = "nothing was committed: the host could not renew its session in the store in time, so that \
                   another host may run this execution by now; this attempt is being stopped";
    new(ErrorKind::Closed, message)
}

/// The answer to a transaction that did not pass the fence.
pub(super) fn fenced_off() -> Error {
    let message = "nothing was committed: a later attempt of this execution has raised the fence in this database, \
                   and this attempt is being stopped";
    new(ErrorKind::Closed, message)
}

/// What a guest is told of a database that cannot be opened: its name and a sort of reason. The
/// database's own words may name the host, the role and the file.
pub(super) fn unreachable(database: &Name, why: &Error) -> Error {
    let code = why.code.as_deref();
    let reason = match (why.kind, code.map(|code| code.get(..2).unwrap_or_default())) {
        (ErrorKind::Timeout, None) => "it does not answer",
        (ErrorKind::Connection, None) => "the connection failed",
        (ErrorKind::Busy, _) => "it takes no more connections",
        (ErrorKind::Conflict, _) => "its file is locked",
        (_, Some("28")) => "it refuses the login",
        (_, Some("3D")) => "the server does not have it",
        (_, Some("57")) => "the server is starting or stopping",
        _ => "it refuses the connection",
    };
    let kind = if why.kind == ErrorKind::Busy { ErrorKind::Busy } else { ErrorKind::Connection };
    let message = format!("database `{database}` cannot be opened: {reason}");
    let hint = "the log of the host says more, and so does `innkeeper check`";
    Error { code: why.code.clone(), hint: Some(hint.to_owned()), ..new(kind, message) }
}

/// How many bytes of each text of an error a guest is given.
const LONGEST: usize = 8 * 1024;

/// Cuts the texts of an error, which a database may make as long as it likes.
pub(super) fn cut(mut error: Error) -> Error {
    for text in [&mut error.detail, &mut error.hint, &mut error.constraint].into_iter().flatten() {
        cut_text(text, LONGEST);
    }
    cut_text(&mut error.message, LONGEST);
    error
}

/// Cuts a text to so many bytes, and says that it did.
pub(super) fn cut_text(text: &mut String, longest: usize) {
    if text.len() > longest {
        text.truncate(text.floor_char_boundary(longest));
        text.push('…');
    }
}

/// # Errors
/// `statement`, where a statement is given more or fewer parameters than it has.
pub(super) fn require_parameters(expected: usize, given: usize) -> Result<(), Error> {
    if expected == given {
        return Ok(());
    }
    let parameters = if expected == 1 { "parameter" } else { "parameters" };
    let were = if given == 1 { "was" } else { "were" };
    let message = format!("the statement has {expected} {parameters}, and {given} {were} given");
    Err(new(ErrorKind::Statement, message))
}

/// A statement that did not succeed.
#[derive(Debug)]
pub(super) struct Failure {
    /// What the guest is told.
    pub(super) error: Error,
    /// The connection is lost, or in a state that nobody knows: it must not be used again.
    pub(super) broken: bool,
    /// The statement was prepared before its tables changed, and did nothing. It has been
    /// forgotten, so that running it again in a fresh transaction prepares it anew.
    pub(super) stale: bool,
    /// The statement may still be running and sending rows that nobody wants: it must be
    /// stopped before anything else is done with the connection.
    pub(super) cut_short: bool,
}

impl Failure {
    /// True where PostgreSQL does not take a statement for what it says or does not support it.
    pub(super) fn is_refusal(&self) -> bool {
        let class = self.error.code.as_deref().and_then(|code| code.get(..2));
        !self.broken && matches!(class, Some("42" | "0A" | "22"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, broken: false, stale: false, cut_short: false }
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        let sqlx::Error::Database(database) = &error else {
            let message = format!("the connection to the database was lost: {error}");
            return Self { broken: true, ..new(ErrorKind::Connection, message).into() };
        };
        match database.try_downcast_ref::<PgDatabaseError>() {
            Some(error) => {
                Self { broken: !matches!(error.severity(), PgSeverity::Error), ..postgres(error).into() }
            }
            None => new(ErrorKind::Other, database.message()).into(),
        }
    }
}

fn postgres(error: &PgDatabaseError) -> Error {
    Error {
        kind: postgres_kind(error.code()),
        message: error.message().to_owned(),
        code: Some(error.code().to_owned()),
        detail: error.detail().map(str::to_owned),
        hint: error.hint().map(str::to_owned),
        constraint: error.constraint().map(str::to_owned),
        position: error.position().and_then(|position| match position {
            PgErrorPosition::Original(at) => u32::try_from(at).ok(),
            PgErrorPosition::Internal { .. } => None,
        }),
    }
}

/// PostgreSQL's Appendix A, "Error Codes".
fn postgres_kind(code: &str) -> ErrorKind {
    match code {
        "23505" => ErrorKind::UniqueViolation,
        "23503" | "23001" => ErrorKind::ForeignKeyViolation,
        "23502" => ErrorKind::NotNullViolation,
        "23514" => ErrorKind::CheckViolation,
        "23P01" => ErrorKind::ExclusionViolation,
        "40001" | "40P01" => ErrorKind::Conflict,
        "57014" | "55P03" | "25P03" | "25P04" | "57P05" => ErrorKind::Timeout,
        "42501" => ErrorKind::Denied,
        "53300" => ErrorKind::Busy,
        "40003" | "57P01" | "57P02" | "57P03" | "57P04" => ErrorKind::Connection,
        _ => match code.get(..2).unwrap_or_default() {
            "08" | "28" => ErrorKind::Connection,
            "53" | "58" | "XX" | "F0" => ErrorKind::Other,
            _ => ErrorKind::Statement,
        },
    }
}

/// True for the answer to a prepared statement that does not mean any more what it did: its
/// tables or types have changed since, or the place that its names are looked up in. `kept` says
/// that it was prepared before this call.
pub(super) fn is_stale_statement(error: &sqlx::Error, kept: bool) -> bool {
    let Some(error) = of_postgres(error) else { return false };
    match error.code() {
        // The code is that of every missing feature, and the message may be in another language;
        // the function of the server's source that reports it is stable.
        "0A000" => error.routine() == Some("RevalidateCachedQuery"),
        // Its name was taken before by a statement of the plugin's own.
        "42P05" => true,
        // It is gone; or types do not fit that did when it was prepared.
        "26000" | "42804" | "42846" | "42883" | "42P18" => kept,
        _ => false,
    }
}

/// True where a statement's name does not stand for what the host has prepared under it.
pub(super) fn is_lost_statement(error: &sqlx::Error) -> bool {
    of_postgres(error).is_some_and(|error| matches!(error.code(), "26000" | "42P05"))
}

/// True where the server does not know a setting, or not the value.
pub(super) fn is_unknown_setting(error: &sqlx::Error) -> bool {
    of_postgres(error).is_some_and(|error| matches!(error.code(), "42704" | "22023"))
}

fn of_postgres(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()
}

/// An error of a call of SQLite.
pub(super) fn of_sqlite(error: &rusqlite::Error) -> Error {
    match error {
        rusqlite::Error::SqliteFailure(failure, message) => {
            let message = message.clone().unwrap_or_else(|| failure.to_string());
            sqlite(failure.extended_code, &message)
        }
        rusqlite::Error::SqlInputError { error, msg, sql, offset } => {
            // Below zero where SQLite does not know.
            let before = usize::try_from(*offset).ok().and_then(|offset| sql.get(..offset));
            let position = before.and_then(|before| u32::try_from(before.chars().count() + 1).ok());
            Error { position, ..sqlite(error.extended_code, msg) }
        }
        other => new(ErrorKind::Other, other.to_string()),
    }
}

/// An error of SQLite by its extended result code.
fn sqlite(code: i32, message: &str) -> Error {
    let constraint = message.split_once("constraint failed: ").map(|(_, name)| name.to_owned());
    let too_big = code & 0xff == codes::SQLITE_TOOBIG;
    Error {
        code: Some(code.to_string()),
        constraint: constraint.filter(|_| code & 0xff == codes::SQLITE_CONSTRAINT),
        hint: too_big
            .then(|| "no value and no row may be larger than `limits.memory` of the plugin".to_owned()),
        ..new(sqlite_kind(code), message)
    }
}

/// <https://sqlite.org/rescode.html>
fn sqlite_kind(code: i32) -> ErrorKind {
    match code {
        codes::SQLITE_CONSTRAINT_UNIQUE
        | codes::SQLITE_CONSTRAINT_PRIMARYKEY
        | codes::SQLITE_CONSTRAINT_ROWID => ErrorKind::UniqueViolation,
        codes::SQLITE_CONSTRAINT_FOREIGNKEY => ErrorKind::ForeignKeyViolation,
        codes::SQLITE_CONSTRAINT_NOTNULL => ErrorKind::NotNullViolation,
        codes::SQLITE_CONSTRAINT_CHECK => ErrorKind::CheckViolation,
        // The low byte is the primary code of an extended one.
        _ => match code & 0xff {
            codes::SQLITE_BUSY | codes::SQLITE_LOCKED => ErrorKind::Conflict,
            codes::SQLITE_INTERRUPT => ErrorKind::Timeout,
            codes::SQLITE_TOOBIG => ErrorKind::LimitExceeded,
            codes::SQLITE_AUTH => ErrorKind::Denied,
            codes::SQLITE_IOERR
            | codes::SQLITE_CORRUPT
            | codes::SQLITE_FULL
            | codes::SQLITE_CANTOPEN
            | codes::SQLITE_NOTADB
            | codes::SQLITE_NOMEM
            | codes::SQLITE_PERM
            | codes::SQLITE_PROTOCOL
            | codes::SQLITE_INTERNAL
            | codes::SQLITE_MISUSE => ErrorKind::Other,
            _ => ErrorKind::Statement,
        },
    }
}

/// True where a statement would have written in a transaction that only reads.
pub(super) fn is_read_only(error: &Error) -> bool {
    match error.code.as_deref() {
        Some("25006") => true,
        // Codes of PostgreSQL have five characters, and those of SQLite for this have four at most.
        Some(code) if code.len() < 5 => {
            code.parse::<i32>().is_ok_and(|code| code & 0xff == codes::SQLITE_READONLY)
        }
        _ => false,
    }
}

/// What a guest is told where nobody has asked that its transaction only reads: it is the server that
/// does no more, and the statement is right.
pub(super) fn explain_read_only_server(failure: Failure) -> Failure {
    if failure.error.code.as_deref() != Some("25006") {
        return failure;
    }
    let hint = "the server only reads now: it is a standby, or `default_transaction_read_only` is on";
    let hint = failure.error.hint.or_else(|| Some(hint.to_owned()));
    Failure { error: Error { kind: ErrorKind::Other, hint, ..failure.error }, ..failure }
}

/// True where another connection holds a lock of SQLite, so that waiting may help.
pub(super) fn is_sqlite_busy(error: &Error) -> bool {
    error
        .code
        .as_deref()
        .and_then(|code| code.parse::<i32>().ok())
        .is_some_and(|code| code & 0xff == codes::SQLITE_BUSY)
}

/// The value in words, for an error. Texts may be secrets and are not shown.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Boolean(value) => format!("the boolean {value}"),
        Value::Integer(value) => format!("the integer {value}"),
        Value::Float(value) => format!("the float {value}"),
        Value::Decimal(_) => "this decimal".to_owned(),
        Value::Text(_) => "this text".to_owned(),
        Value::Bytes(_) => "bytes".to_owned(),
        Value::Date(days) => format!("the date {}", civil::date_text((*days).into())),
        Value::Time(micros) => format!("the time {}", civil::time_text(*micros)),
        Value::Timestamp(micros) => {
            format!("the timestamp {} (without a time zone)", civil::timestamp_text(*micros, ""))
        }
        Value::Instant(micros) => format!("the instant {}", civil::timestamp_text(*micros, "Z")),
        Value::Uuid(_) => "this uuid".to_owned(),
        Value::Json(_) => "JSON".to_owned(),
        Value::BooleanArray(_) | Value::IntegerArray(_) | Value::FloatArray(_) | Value::TextArray(_) => {
            "this array".to_owned()
        }
        Value::Other(_) => "this text of another type".to_owned(),
    }
}
