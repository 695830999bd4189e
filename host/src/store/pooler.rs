//! Connections to PostgreSQL, and what is different where they lead to a pooler in transaction
//! mode: a server's session belongs to one transaction, and then to somebody else's.
//!
//! So every statement is in a transaction, also one that only reads; statements have no name,
//! since a name would be another session's; and what is set is set for the transaction.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;
use sqlx::error::BoxDynError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{
    AssertSqlSafe, Either, Error, Execute, Executor, PgConnection, PgPool, Postgres, SqlStr, Transaction,
};

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
    /// The settings of a connection, with the time-out of transactions that do nothing.
    pub(super) fn settings(self, settings: PgConnectOptions, idle: Duration) -> PgConnectOptions {
        match self {
            Self::None => settings.options([("idle_in_transaction_session_timeout", millis(idle))]),
            // A pooler refuses most parameters at the start of a connection: it would have to set
            // them again for each transaction.
            Self::Transaction => settings.extra_float_digits(None).statement_cache_capacity(0),
        }
    }

    /// Begins a transaction.
    pub(super) async fn begin(self, pool: &PgPool, idle: Duration) -> Result<Lent, Error> {
        let tx = match self {
            Self::None => pool.begin().await?,
            Self::Transaction => {
                let set = format!("begin; set local idle_in_transaction_session_timeout = {}", millis(idle));
                pool.begin_with(AssertSqlSafe(set)).await?
            }
        };
        Ok(Lent(Connection { held: Held::Transaction(tx), named: self == Self::None }))
    }

    /// A connection for statements that need no transaction. What is not committed may be lost.
    pub(super) async fn lend(self, pool: &PgPool, idle: Duration) -> Result<Lent, Error> {
        match self {
            Self::None => Ok(Lent(Connection { held: Held::Connection(pool.acquire().await?), named: true })),
            Self::Transaction => self.begin(pool, idle).await,
        }
    }
}

fn millis(time: Duration) -> u128 {
    time.as_millis().max(1)
}

/// A connection that is lent. Dropping it rolls back what was not committed.
#[derive(Debug)]
pub(super) struct Lent(Connection);

impl Lent {
    /// Commits, where there is a transaction.
    pub(super) async fn commit(self) -> Result<(), Error> {
        match self.0.held {
            Held::Transaction(tx) => tx.commit().await,
            Held::Connection(_) => Ok(()),
        }
    }
}

impl Deref for Lent {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0
    }
}

/// What statements run on.
#[derive(Debug)]
pub(in crate::store) struct Connection {
    held: Held,
    /// Statements are prepared once, by a name that the session keeps.
    named: bool,
}

enum Held {
    Connection(PoolConnection<Postgres>),
    Transaction(Transaction<'static, Postgres>),
}

impl Held {
    fn connection(&mut self) -> &mut PgConnection {
        match self {
            Self::Connection(connection) => connection,
            Self::Transaction(tx) => tx,
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection(_) => "Connection",
            Self::Transaction(_) => "Transaction",
        })
    }
}

/// A query whose statement gets no name, unless it may have one.
struct Named<Q>(Q, bool);

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

type Parts<'e> = Pin<Box<dyn Stream<Item = Result<Either<PgQueryResult, PgRow>, Error>> + Send + 'e>>;
type Answer<'e, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'e>>;

impl<'c> Executor<'c> for &'c mut Connection {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> Parts<'e>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        self.held.connection().fetch_many(Named(query, self.named))
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> Answer<'e, Option<PgRow>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        self.held.connection().fetch_optional(Named(query, self.named))
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> Answer<'e, PgStatement>
    where
        'c: 'e,
    {
        self.held.connection().prepare_with(sql, parameters)
    }
}
