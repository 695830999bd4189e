//! What can go wrong with the store, by what the caller does about it.

use crate::job::Name;
use crate::suggest;

/// Why the store did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Try again later: the database cannot be reached, is busy, or broke off a conflict.
    #[error("{0}")]
    Unavailable(String),
    /// There is no schema, or no file, at that place. `innkeeper migrate` makes it.
    #[error("{0}")]
    NotMigrated(String),
    /// The schema is older than this binary needs.
    #[error(
        "the store {place} is at migration {applied}, and innkeeper {} needs migration {needed}: run \
         `innkeeper migrate`",
        env!("CARGO_PKG_VERSION")
    )]
    Behind {
        /// The store, without a password.
        place: String,
        /// The newest migration that was applied to it.
        applied: i32,
        /// The newest one that this binary has.
        needed: i32,
    },
    /// The schema declares this binary too old to work on it.
    #[error(
        "this is innkeeper {}, which knows migrations up to {known}, and the store {place} was brought to \
         migration {applied} by innkeeper {version} and needs a binary that knows migration \
         {oldest_compatible} or a later one: install innkeeper {version}, or a later one, on this host",
        env!("CARGO_PKG_VERSION")
    )]
    TooOld {
        /// The store, without a password.
        place: String,
        /// The newest migration that this binary has.
        known: i32,
        /// The newest migration that was applied.
        applied: i32,
        /// What a binary has to know at least.
        oldest_compatible: i32,
        /// The version of innkeeper that applied the newest migration.
        version: String,
    },
    /// The host session is dead. It does not come back to life: the host has to stop its
    /// executions and register anew.
    #[error(
        "the host session has ended: it was not renewed in time, and its executions were given to others"
    )]
    SessionLost,
    /// The lease has ended, or its host session is dead; what was asked for is in `stale`.
    #[error("attempt {lease} is over: its execution was given to another host, or has ended")]
    LeaseLost {
        /// The lease.
        lease: i64,
    },
    /// There is no such job, or it was retired.
    #[error("there is no job `{name}`{}", known_jobs(name, known))]
    UnknownJob {
        /// The name that was asked for.
        name: Name,
        /// The jobs that there are.
        known: Vec<String>,
    },
    /// What the caller sent cannot be stored.
    #[error("{0}")]
    Invalid(String),
    /// The store holds what no innkeeper wrote, or its file is damaged. A person has to look.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// Anything else: a mistake of ours or of the database's set-up.
    #[error("{context}: {source}")]
    Other {
        /// What was being done.
        context: String,
        /// What the database said.
        source: sqlx::Error,
    },
}

fn known_jobs(name: &Name, known: &[String]) -> String {
    let hint = suggest::hint(name.as_str(), known.iter().map(String::as_str));
    if !hint.is_empty() {
        return hint;
    }
    match known {
        [] => "; the store has no jobs yet: `innkeeper serve` writes those of the configuration".to_owned(),
        [.., _] if known.len() > 20 => "; `innkeeper job list` shows the jobs that there are".to_owned(),
        known => format!("; there are `{}`", known.join("`, `")),
    }
}

impl StoreError {
    /// The same, with what was being done, or where, before the message.
    pub(super) fn context(self, what: impl std::fmt::Display) -> Self {
        match self {
            Self::Unavailable(message) => Self::Unavailable(format!("{what}: {message}")),
            Self::NotMigrated(message) => Self::NotMigrated(format!("{what}: {message}")),
            Self::Corrupt(message) => Self::Corrupt(format!("{what}: {message}")),
            Self::Other { context, source } => Self::Other { context: format!("{what}: {context}"), source },
            other => other,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let unavailable = |message: String| Self::Unavailable(message);
        match &error {
            sqlx::Error::Io(source) => unavailable(source.to_string()),
            sqlx::Error::Tls(source) => unavailable(format!("TLS: {source}")),
            sqlx::Error::PoolTimedOut => {
                unavailable("no connection came free or could be opened in time".into())
            }
            sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
                unavailable("the connection is closed".into())
            }
            sqlx::Error::BeginFailed => unavailable("a transaction could not be begun".into()),
            sqlx::Error::Database(source) => {
                let code = source.code().unwrap_or_default().into_owned();
                let message = source.message().to_owned();
                let postgres = source.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some();
                match if postgres { by_sqlstate(&code) } else { by_sqlite_code(&code, &message) } {
                    Class::Unavailable => Self::Unavailable(message),
                    Class::NotMigrated => Self::NotMigrated(format!("{message}; run `innkeeper migrate`")),
                    Class::Corrupt => Self::Corrupt(message),
                    Class::Other => Self::Other { context: "the store refused".into(), source: error },
                }
            }
            _ => Self::Other { context: "the store failed".into(), source: error },
        }
    }
}

enum Class {
    Unavailable,
    NotMigrated,
    Corrupt,
    Other,
}

/// SQLSTATE, <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn by_sqlstate(code: &str) -> Class {
    match code {
        // Undefined table, undefined schema.
        "42P01" | "3F000" => Class::NotMigrated,
        // Idle-in-transaction time-out; a server that only reads for now; no such database.
        "25P03" | "25006" | "3D000" => Class::Unavailable,
        _ => match code.get(..2).unwrap_or_default() {
            // Connection, login, conflicts (serialization, deadlock), resources, operator's
            // intervention (shutdown, cancelled query).
            "08" | "28" | "40" | "53" | "57" => Class::Unavailable,
            "XX" => Class::Corrupt,
            _ => Class::Other,
        },
    }
}

/// Result codes, <https://www.sqlite.org/rescode.html>; the low byte is the primary one.
fn by_sqlite_code(code: &str, message: &str) -> Class {
    match code.parse::<i32>().unwrap_or(0) & 0xff {
        // BUSY, LOCKED, READONLY, INTERRUPT, IOERR, FULL, CANTOPEN, PROTOCOL
        5 | 6 | 8 | 9 | 10 | 13 | 14 | 15 => Class::Unavailable,
        // CORRUPT, NOTADB
        11 | 26 => Class::Corrupt,
        1 if message.starts_with("no such table") => Class::NotMigrated,
        _ => Class::Other,
    }
}
