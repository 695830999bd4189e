//! The `db` interface: SQL in transactions that belong to the host.
//!
//! The rules, and where each is kept:
//!
//! - Every `query`, `execute`, `execute-many` and `begin` opens a fresh transaction on a
//!   connection of its own ([`session`]). The first three commit when they answer `ok` and roll
//!   back otherwise; a transaction of `begin` commits only by `commit`.
//! - Connections come from a pool for each database, bounded over all plugins and kept apart by
//!   grant: logins, caches, temporary tables and settings never pass from one plugin to another
//!   ([`pool`]).
//! - Between two uses a connection is made as new: settings, temporary tables and session locks
//!   are undone, in the message that commits or rolls back, or it is closed (`postgres`,
//!   `sqlite`).
//! - A transaction lives in the execution's [`Session`], outside of the wasmtime store: the
//!   guest's handle is only its number, which is never used again. Every statement runs in a
//!   task that owns the connection (`serve`), so that dropping the guest's future never leaves a
//!   connection in the middle of its protocol.
//! - [`Session::end`] ends whatever is open: statements are cancelled, transactions are rolled
//!   back, connections go back to the pool or are closed, in a bounded time.
//! - A plugin cannot end or nest the host's transaction by SQL text (`statement`; on SQLite an
//!   authorizer as well; on PostgreSQL the commit checks that it is the one that was begun).
//! - A failed statement fails its transaction, on both engines: from then on all but a rollback,
//!   of the whole or to a savepoint, is refused, and `commit` is an error that rolls back
//!   (`transaction`).
//! - A parameter takes the type that the database infers for it, and every value arrives
//!   exactly, or as an error that names the column (`postgres`, `sqlite`).
//! - What a plugin may have is bounded: rows, bytes, open transactions and cursors, statements
//!   at once by its grant (`grant`, `rows`), texts of statements (`statement`) and of errors
//!   (`error`) by a constant.
//! - Nothing is committed late: not after the host session has expired, and with a fence not
//!   after the next attempt has begun ([`fence`]).
//! - What the logins of the plugins may do, and should not, is looked at by [`privileges`].
//!
//! Inside, the arrows go one way: `fence`, `caller`, `grant`, `work` ← the engines ← `connection` ←
//! [`pool`] ← `transaction` ← `serve` ← [`session`].

mod caller;
mod civil;
mod connection;
mod counts;
mod error;
pub mod fence;
mod grant;
mod grants;
mod once;
pub mod pool;
mod postgres;
pub mod privileges;
mod rows;
mod serve;
pub mod session;
mod sqlite;
mod statement;
mod transaction;
mod work;

use std::sync::Arc;

use wasmtime::Result as Trappable;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};

pub use self::grants::Grants;
pub use self::pool::{Connections, Database, Databases};
pub use self::session::{Ended, Session};
use super::bindings::innkeeper::plugin::db;
pub use super::bindings::innkeeper::plugin::db::{
    BeginOptions, Column, Error, ErrorKind, Isolation, RowSet, Value,
};

/// What the guest's handle of a transaction stands for.
#[derive(Debug)]
pub struct TransactionHandle {
    /// The number of the transaction in its execution's registry, never used again.
    pub id: u64,
}

/// What the guest's handle of a cursor stands for.
#[derive(Debug)]
pub struct CursorHandle {
    /// Its transaction.
    transaction: u64,
    /// Its number in the execution's registry, never used again.
    number: u64,
    columns: Vec<Column>,
}

/// What the calls of one guest work on.
pub struct DbView<'a> {
    /// The execution's transactions.
    pub session: &'a Arc<Session>,
    /// The guest's handles.
    pub table: &'a mut ResourceTable,
}

/// Names [`DbView`] to the linker.
struct HasDb;

impl HasData for HasDb {
    type Data<'a> = DbView<'a>;
}

/// Offers the interface to components.
///
/// # Errors
/// Where the linker already has it.
pub fn add_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    get: fn(&mut T) -> DbView<'_>,
) -> Trappable<()> {
    db::add_to_linker::<T, HasDb>(linker, get)
}

impl db::Host for DbView<'_> {
    async fn query(&mut self, statement: String, params: Vec<Value>) -> Trappable<Result<RowSet, Error>> {
        Ok(self.session.query(statement, params).await)
    }

    async fn execute(&mut self, statement: String, params: Vec<Value>) -> Trappable<Result<u64, Error>> {
        Ok(self.session.execute(statement, params).await)
    }

    async fn execute_many(
        &mut self,
        statement: String,
        params: Vec<Vec<Value>>,
    ) -> Trappable<Result<u64, Error>> {
        Ok(self.session.execute_many(statement, params).await)
    }

    async fn begin(
        &mut self,
        options: BeginOptions,
    ) -> Trappable<Result<Resource<TransactionHandle>, Error>> {
        match self.session.begin(options).await {
            // Never `push_child`: a guest may drop its handles in any order.
            Ok(id) => Ok(Ok(self.table.push(TransactionHandle { id })?)),
            Err(error) => Ok(Err(error)),
        }
    }
}

impl db::HostTransaction for DbView<'_> {
    async fn query(
        &mut self,
        transaction: Resource<TransactionHandle>,
        statement: String,
        params: Vec<Value>,
    ) -> Trappable<Result<RowSet, Error>> {
        let id = self.table.get(&transaction)?.id;
        Ok(self.session.query_in(id, statement, params).await)
    }

    async fn execute(
        &mut self,
        transaction: Resource<TransactionHandle>,
        statement: String,
        params: Vec<Value>,
    ) -> Trappable<Result<u64, Error>> {
        let id = self.table.get(&transaction)?.id;
        Ok(self.session.execute_in(id, statement, params).await)
    }

    async fn execute_many(
        &mut self,
        transaction: Resource<TransactionHandle>,
        statement: String,
        params: Vec<Vec<Value>>,
    ) -> Trappable<Result<u64, Error>> {
        let id = self.table.get(&transaction)?.id;
        Ok(self.session.execute_many_in(id, statement, params).await)
    }

    async fn open_cursor(
        &mut self,
        transaction: Resource<TransactionHandle>,
        statement: String,
        params: Vec<Value>,
    ) -> Trappable<Result<Resource<CursorHandle>, Error>> {
        let transaction = self.table.get(&transaction)?.id;
        match self.session.open_cursor(transaction, statement, params).await {
            // Never `push_child`, as above.
            Ok((number, columns)) => {
                Ok(Ok(self.table.push(CursorHandle { transaction, number, columns })?))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    async fn savepoint(&mut self, transaction: Resource<TransactionHandle>) -> Trappable<Result<u32, Error>> {
        let id = self.table.get(&transaction)?.id;
        Ok(self.session.savepoint(id).await)
    }

    async fn rollback_to(
        &mut self,
        transaction: Resource<TransactionHandle>,
        savepoint: u32,
    ) -> Trappable<Result<(), Error>> {
        let id = self.table.get(&transaction)?.id;
        Ok(self.session.rollback_to(id, savepoint).await)
    }

    async fn release(
        &mut self,
        transaction: Resource<TransactionHandle>,
        savepoint: u32,
    ) -> Trappable<Result<(), Error>> {
        let id = self.table.get(&transaction)?.id;
        Ok(self.session.release(id, savepoint).await)
    }

    async fn commit(&mut self, transaction: Resource<TransactionHandle>) -> Trappable<Result<(), Error>> {
        let id = self.table.get(&transaction)?.id;
        Ok(self.session.commit(id).await)
    }

    async fn rollback(&mut self, transaction: Resource<TransactionHandle>) -> Trappable<Result<(), Error>> {
        let id = self.table.get(&transaction)?.id;
        Ok(self.session.rollback(id).await)
    }

    /// An open transaction is rolled back before the guest goes on. One that has ended
    /// answers `closed`, which is nobody's concern here.
    async fn drop(&mut self, transaction: Resource<TransactionHandle>) -> Trappable<()> {
        let id = self.table.delete(transaction)?.id;
        let _closed = self.session.rollback(id).await;
        Ok(())
    }
}

impl db::HostCursor for DbView<'_> {
    async fn columns(&mut self, cursor: Resource<CursorHandle>) -> Trappable<Vec<Column>> {
        Ok(self.table.get(&cursor)?.columns.clone())
    }

    async fn fetch(
        &mut self,
        cursor: Resource<CursorHandle>,
        limit: u32,
    ) -> Trappable<Result<Vec<Vec<Value>>, Error>> {
        let &CursorHandle { transaction, number, .. } = self.table.get(&cursor)?;
        Ok(self.session.fetch(transaction, number, limit).await)
    }

    /// Nothing that the guest could see, whatever has become of the transaction.
    async fn drop(&mut self, cursor: Resource<CursorHandle>) -> Trappable<()> {
        let CursorHandle { transaction, number, .. } = self.table.delete(cursor)?;
        self.session.close_cursor(transaction, number).await;
        Ok(())
    }
}
