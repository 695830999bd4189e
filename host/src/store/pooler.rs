//! Connections to PostgreSQL, and what is different where they lead to a pooler in transaction
//! mode: a server's session belongs to one transaction, and then to somebody else's.
//!
//! So every statement is in a transaction, also one that only reads; statements have no name,
//! since a name would be another session's; and what is set is set for the transaction.

use std::fmt::Write as _;

use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgStatement};
use sqlx::{Execute, Postgres, SqlStr};

/// What the connections lead to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooler {
    /// A server, or a pooler that gives each connection a session of its own.
    #[default]
    None,
    /// A pooler that gives each transaction a session: pgbouncer with `pool_mode = transaction`.
    Transaction,
}

impl Pooler {
    /// The settings of a connection, and of its sessions where it has one.
    pub(super) fn settings(self, settings: PgConnectOptions, session: &[(&str, String)]) -> PgConnectOptions {
        match self {
            Self::None => settings.options(session.iter().map(|(name, value)| (*name, value))),
            // A pooler refuses most parameters at the start of a connection: it would have to set
            // them again for each transaction.
            Self::Transaction => settings.extra_float_digits(None).statement_cache_capacity(0),
        }
    }

    /// What begins a transaction.
    pub(super) fn begin(self, session: &[(&str, String)]) -> String {
        let mut begin = "begin".to_owned();
        if self == Self::Transaction {
            // Keepalives are for the way to the server, which is the pooler's.
            for (name, value) in session.iter().filter(|(name, _)| !name.starts_with("tcp_")) {
                let _ = write!(begin, "; set local {name} = {value}");
            }
        }
        begin
    }
}

/// A query whose statement gets no name, unless it may have one.
pub(super) struct Named<Q>(pub(super) Q, pub(super) bool);

impl<'q, Q: Execute<'q, Postgres>> Execute<'q, Postgres> for Named<Q> {
    fn sql(self) -> SqlStr {
        self.0.sql()
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.0.statement()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        self.0.take_arguments()
    }

    fn persistent(&self) -> bool {
        self.1 && self.0.persistent()
    }
}
