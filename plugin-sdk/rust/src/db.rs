//! SQL in transactions that belong to the host.
//!
//! Every call of [`query`], [`execute`], [`execute_many`] and [`begin`] is a fresh transaction on
//! a connection of its own. The first three commit when they return `Ok` and roll back when they
//! return an error. What belongs together goes into one transaction by [`transaction`], which
//! also runs it again when it loses to another one:
//!
//! ```no_run
//! use innkeeper_sdk::{Failure, db, params};
//!
//! fn move_money(from: i64, to: i64, cents: i64) -> Result<(), Failure> {
//!     db::transaction(Default::default(), |tx| {
//!         let balance: i64 = tx
//!             .query("SELECT balance FROM accounts WHERE id = $1", params![from])?
//!             .scalar()?;
//!         if balance < cents {
//!             return Err(Failure::permanent("not enough money")); // rolled back
//!         }
//!         let add = "UPDATE accounts SET balance = balance + $2 WHERE id = $1";
//!         tx.execute_many(add, [params![from, -cents], params![to, cents]])?;
//!         Ok(()) // committed
//!     })
//! }
//! ```
//!
//! A handler that is one transaction from its start to its end is marked
//! [`#[handler(transaction)]`](crate::handler); one that wants to say itself when it begins and
//! commits calls [`begin`].
//!
//! Parameters are `$1`, `$2` and so on, on PostgreSQL and on SQLite alike.
//!
//! `docs/db.md` in Innkeeper's repository is the whole contract: what commits when, what is
//! isolated from what, which value arrives for which type, every kind of error, and the limits.

mod arrays;
mod cursor;
mod error;
mod retry;
mod rows;
mod transaction;
mod value;

use crate::bindings::innkeeper::plugin::db as wit;

pub use arrays::ArrayElement;
pub use cursor::Cursor;
pub use error::{Error, ErrorKind};
pub use rows::{Column, ColumnIndex, OwnedRow, Row, Rows};
pub use transaction::{Savepoint, Transaction};
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

/// Runs one statement once for each parameter list, all in one transaction of its own, and returns
/// the number of rows changed in total.
///
/// ```no_run
/// # fn f(readings: &[(i64, f64)]) -> Result<(), innkeeper_sdk::db::Error> {
/// use innkeeper_sdk::{db, params};
///
/// let insert = "INSERT INTO readings (sensor, value) VALUES ($1, $2)";
/// db::execute_many(insert, readings.iter().map(|(sensor, value)| params![*sensor, *value]))?;
/// # Ok(()) }
/// ```
///
/// All the lists are in the plugin's memory at once: give very many of them in several calls, in
/// one [`Transaction`] if they belong together.
///
/// # Errors
/// What the database or the host refused of any of them; nothing is changed then.
pub fn execute_many(statement: &str, lists: impl IntoIterator<Item = Vec<Value>>) -> Result<u64, Error> {
    let lists: Vec<Vec<Value>> = lists.into_iter().collect();
    Ok(wit::execute_many(statement, &lists)?)
}

/// Runs `work` in a fresh transaction: commits when it returns `Ok`, rolls back when it returns an
/// error, and runs it again in another transaction when this one lost to somebody else's.
///
/// That is a [conflict](ErrorKind::Conflict): a serialization failure, a deadlock, the writer's
/// turn on a SQLite file. It is run again whether beginning, a statement or the commit met it, and
/// whatever `work` made of the error of a statement: the transaction remembers it. Five runs are made
/// at most, with short pauses between them; then the error of the last one is returned. Each further
/// run is a line of level `debug` in the execution's log.
///
/// **`work` may run several times**, and only what its transaction does is undone in between: let
/// it do nothing else that counts, such as to call [`execute`], to enqueue a job or to add to a
/// variable outside.
///
/// ```no_run
/// # use innkeeper_sdk::Failure;
/// # fn f(seat: i64, guest: &str) -> Result<bool, Failure> {
/// use innkeeper_sdk::db::{self, BeginOptions, Isolation};
/// use innkeeper_sdk::params;
///
/// let options = BeginOptions { isolation: Some(Isolation::Serializable), ..Default::default() };
/// let booked = db::transaction(options, |tx| {
///     let taken = "SELECT count(*) FROM bookings WHERE seat = $1";
///     if tx.query(taken, params![seat])?.scalar::<i64>()? > 0 {
///         return Ok(false);
///     }
///     tx.execute("INSERT INTO bookings (seat, guest) VALUES ($1, $2)", params![seat, guest])?;
///     Ok::<bool, db::Error>(true)
/// })?;
/// # Ok(booked) }
/// ```
///
/// The error of `work` is any type that a [`db::Error`](Error) converts into, such as that itself or
/// a [`Failure`](crate::Failure).
///
/// # Errors
/// That of `work`, or why the transaction could not be begun or committed. Nothing was committed
/// then, unless it is of the kind [`ErrorKind::Connection`], after which that is not known.
pub fn transaction<T, E: From<Error>>(
    options: BeginOptions,
    work: impl FnMut(&Transaction) -> Result<T, E>,
) -> Result<T, E> {
    let options = wit::BeginOptions::from(options);
    retry::run(|| Transaction::begin(&options), work, retry::pause)
}

/// Opens a fresh transaction on the plugin's default database, with that database's default
/// isolation. [`transaction`] is shorter where it can be used, and runs again on a conflict.
///
/// # Errors
/// Kind [`ErrorKind::Busy`] when no connection came free in time, [`ErrorKind::Conflict`] when the
/// writer's turn on a SQLite file did not come in time, [`ErrorKind::LimitExceeded`] when the
/// execution has too many transactions open, and others.
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
    Transaction::begin(&options.into())
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

impl From<BeginOptions> for wit::BeginOptions {
    fn from(BeginOptions { database, isolation, read_only }: BeginOptions) -> Self {
        Self { database, isolation, read_only }
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
