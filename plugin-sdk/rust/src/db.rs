//! SQL in transactions that belong to the host.
//!
//! Every call of [`query`], [`execute`] and [`begin`] is a fresh transaction on a connection of
//! its own. The first two commit when they return `Ok` and roll back when they return an error;
//! a [`Transaction`] commits only by [`Transaction::commit`].
//!
//! ```no_run
//! use innkeeper_sdk::{Failure, db, params};
//!
//! fn move_money(from: i64, to: i64, cents: i64) -> Result<(), Failure> {
//!     let tx = db::begin()?;
//!     let balance: i64 = tx
//!         .query("SELECT balance FROM accounts WHERE id = $1", params![from])?
//!         .scalar()?;
//!     if balance < cents {
//!         return Err(Failure::permanent("not enough money")); // rolled back
//!     }
//!     tx.execute("UPDATE accounts SET balance = balance - $2 WHERE id = $1", params![from, cents])?;
//!     tx.execute("UPDATE accounts SET balance = balance + $2 WHERE id = $1", params![to, cents])?;
//!     tx.commit()?;
//!     Ok(())
//! }
//! ```
//!
//! Parameters are `$1`, `$2` and so on, on PostgreSQL and on SQLite alike.

mod error;
mod rows;
mod value;

use crate::bindings::innkeeper::plugin::db as wit;

pub use error::{Error, ErrorKind};
pub use rows::{Column, ColumnIndex, Row, Rows};
pub use value::{FromValue, Value};
pub use wit::Isolation;

/// Runs one statement in a transaction of its own and returns its rows.
///
/// # Errors
/// What the database or the host refused; the transaction is rolled back.
pub fn query(statement: &str, params: impl AsRef<[Value]>) -> Result<Rows, Error> {
    Ok(wit::query(statement, params.as_ref())?.into())
}

/// Runs one statement in a transaction of its own and returns the number of rows that it changed.
///
/// # Errors
/// What the database or the host refused; the transaction is rolled back.
pub fn execute(statement: &str, params: impl AsRef<[Value]>) -> Result<u64, Error> {
    Ok(wit::execute(statement, params.as_ref())?)
}

/// Opens a fresh transaction on the plugin's default database, with that database's default
/// isolation.
///
/// # Errors
/// Kind [`ErrorKind::Busy`] when no connection came free in time, [`ErrorKind::LimitExceeded`]
/// when the plugin has too many transactions open, and others.
pub fn begin() -> Result<Transaction, Error> {
    begin_with(BeginOptions::default())
}

/// Opens a fresh transaction as the options say.
///
/// ```no_run
/// # fn f() -> Result<(), innkeeper_sdk::db::Error> {
/// use innkeeper_sdk::db::{self, BeginOptions};
///
/// let options = BeginOptions { database: Some("billing".into()), read_only: true, ..Default::default() };
/// let tx = db::begin_with(options)?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// As [`begin`], and [`ErrorKind::Denied`] for a database that the plugin was not granted.
pub fn begin_with(options: BeginOptions) -> Result<Transaction, Error> {
    let BeginOptions { database, isolation, read_only } = options;
    Ok(Transaction { handle: wit::begin(&wit::BeginOptions { database, isolation, read_only })? })
}

/// How to open a transaction.
#[derive(Clone, Debug, Default)]
pub struct BeginOptions {
    /// A database that the operator granted to this plugin; `None` for the plugin's default.
    pub database: Option<String>,
    /// `None` for the database's default.
    pub isolation: Option<Isolation>,
    /// The database refuses changes.
    pub read_only: bool,
}

/// An open transaction. Dropping it rolls it back.
#[derive(Debug)]
#[must_use = "a transaction that is dropped is rolled back"]
pub struct Transaction {
    handle: wit::Transaction,
}

impl Transaction {
    /// Runs one statement and returns its rows.
    ///
    /// # Errors
    /// What the database or the host refused.
    pub fn query(&self, statement: &str, params: impl AsRef<[Value]>) -> Result<Rows, Error> {
        Ok(self.handle.query(statement, params.as_ref())?.into())
    }

    /// Runs one statement and returns the number of rows that it changed.
    ///
    /// # Errors
    /// What the database or the host refused.
    pub fn execute(&self, statement: &str, params: impl AsRef<[Value]>) -> Result<u64, Error> {
        Ok(self.handle.execute(statement, params.as_ref())?)
    }

    /// Commits. Whatever it returns, the transaction has ended.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when it lost to another one; [`ErrorKind::Connection`] when the
    /// connection was lost, and then it is unknown whether the commit took effect.
    pub fn commit(self) -> Result<(), Error> {
        Ok(self.handle.commit()?)
    }

    /// Rolls back, as dropping does, and tells whether that went well.
    ///
    /// # Errors
    /// What the database or the host refused. The transaction has ended all the same.
    pub fn rollback(self) -> Result<(), Error> {
        Ok(self.handle.rollback()?)
    }
}

/// A list of parameters: each one is converted by [`Value::from`].
///
/// ```
/// use innkeeper_sdk::db::Value;
/// use innkeeper_sdk::params;
///
/// let nobody: Option<i64> = None;
/// assert_eq!(params!["Ada", 36, nobody], [Value::Text("Ada".into()), Value::Integer(36), Value::Null]);
/// ```
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        ::std::vec::Vec::<$crate::db::Value>::from([$($crate::db::Value::from($value)),*])
    };
}
