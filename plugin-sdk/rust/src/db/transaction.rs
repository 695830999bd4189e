//! An open transaction.

use std::cell::RefCell;
use std::ptr;

use super::{Cursor, Error, ErrorKind, Rows, Value, retry};
use crate::bindings::innkeeper::plugin::db as wit;

/// An open transaction. Dropping it rolls it back.
///
/// A statement that fails fails the transaction, on every engine: every later one is refused, and
/// so is [`commit`](Self::commit), until it is [rolled back to a savepoint](Self::rollback_to).
/// [`nested`](Self::nested) does that for a group of statements.
#[derive(Debug)]
#[must_use = "a transaction that is dropped is rolled back"]
pub struct Transaction {
    handle: wit::Transaction,
    /// The last conflict that a call of it met.
    conflict: RefCell<Option<Error>>,
}

/// A place in a transaction that can be rolled back to.
#[derive(Clone, Copy, Debug)]
pub struct Savepoint<'tx> {
    transaction: &'tx Transaction,
    number: u32,
}

impl Transaction {
    pub(super) fn begin(options: &wit::BeginOptions) -> Result<Self, Error> {
        Ok(Self { handle: wit::begin(options)?, conflict: RefCell::default() })
    }

    /// Runs one statement and returns its rows.
    ///
    /// # Errors
    /// What the database or the host refused.
    pub fn query(&self, statement: &str, params: impl AsRef<[Value]>) -> Result<Rows, Error> {
        Ok(self.note(self.handle.query(statement, params.as_ref()))?.into())
    }

    /// Runs one statement and returns the number of rows that it changed.
    ///
    /// # Errors
    /// What the database or the host refused.
    pub fn execute(&self, statement: &str, params: impl AsRef<[Value]>) -> Result<u64, Error> {
        self.note(self.handle.execute(statement, params.as_ref()))
    }

    /// Runs one statement once for each parameter list, and returns the number of rows changed in
    /// total. See [`db::execute_many`](super::execute_many).
    ///
    /// # Errors
    /// What the database or the host refused of any of them.
    pub fn execute_many(
        &self,
        statement: &str,
        lists: impl IntoIterator<Item = Vec<Value>>,
    ) -> Result<u64, Error> {
        let lists: Vec<Vec<Value>> = lists.into_iter().collect();
        self.note(self.handle.execute_many(statement, &lists))
    }

    /// Opens a cursor, for results that are too large to hold at once. The transaction can run
    /// other statements while it is open.
    ///
    /// ```no_run
    /// # fn f() -> Result<(), innkeeper_sdk::db::Error> {
    /// use innkeeper_sdk::{db, params};
    ///
    /// let tx = db::begin()?;
    /// for row in tx.open_cursor("SELECT id, note FROM orders WHERE open", params![])?.rows(1000) {
    ///     let row = row?;
    ///     let (id, note): (i64, &str) = (row.get("id")?, row.get("note")?);
    ///     tx.execute("INSERT INTO found (id, length) VALUES ($1, $2)", params![id, note.len() as i64])?;
    /// }
    /// tx.commit()?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// What the database or the host refused; [`ErrorKind::LimitExceeded`] when the execution has
    /// too many cursors open.
    pub fn open_cursor(&self, statement: &str, params: impl AsRef<[Value]>) -> Result<Cursor<'_>, Error> {
        Ok(Cursor::new(self, self.note(self.handle.open_cursor(statement, params.as_ref()))?))
    }

    /// Runs `work` so that it can fail alone: makes a savepoint, keeps what was done when `work`
    /// returns `Ok`, and rolls back to the savepoint when it returns an error. The transaction goes
    /// on in both cases. Other libraries call that a nested transaction.
    ///
    /// ```no_run
    /// # fn f(emails: &[String]) -> Result<(), innkeeper_sdk::db::Error> {
    /// use innkeeper_sdk::db::{self, ErrorKind};
    /// use innkeeper_sdk::params;
    ///
    /// let tx = db::begin()?;
    /// for email in emails {
    ///     let insert = "INSERT INTO users (email) VALUES ($1)";
    ///     match tx.nested(|tx| tx.execute(insert, params![email])) {
    ///         Err(error) if error.kind() == ErrorKind::UniqueViolation => {} // leave it out
    ///         other => _ = other?,
    ///     }
    /// }
    /// tx.commit()?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// That of `work`, or why the savepoint could not be made or released. Where a statement has
    /// failed, `Ok` of `work` does not hide it.
    pub fn nested<T, E: From<Error>>(&self, work: impl FnOnce(&Self) -> Result<T, E>) -> Result<T, E> {
        let savepoint = self.savepoint()?;
        let error = match work(self) {
            Ok(value) => match self.release(savepoint) {
                Ok(()) => return Ok(value),
                Err(error) => error.into(),
            },
            Err(error) => error,
        };
        // Where that fails the transaction has failed, and nothing of it can be committed. The
        // cause is what helps.
        let _failed = self.rollback_to(savepoint).and_then(|()| self.release(savepoint));
        Err(error)
    }

    /// Marks a place to roll back to. [`nested`](Self::nested) is easier to use.
    ///
    /// # Errors
    /// What the database or the host refused.
    pub fn savepoint(&self) -> Result<Savepoint<'_>, Error> {
        let number = self.note(self.handle.savepoint())?;
        Ok(Savepoint { transaction: self, number })
    }

    /// Undoes what was done since the savepoint, a failed statement as well. The savepoint stays, those
    /// made after it are forgotten, and cursors opened after it end.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] for a savepoint that is not there any more, or is another
    /// transaction's; and what the database refused.
    pub fn rollback_to(&self, savepoint: Savepoint<'_>) -> Result<(), Error> {
        let number = self.number_of(savepoint)?;
        self.note(self.handle.rollback_to(number))
    }

    /// Forgets the savepoint and those made after it, and keeps what was done since.
    ///
    /// # Errors
    /// As [`rollback_to`](Self::rollback_to).
    pub fn release(&self, savepoint: Savepoint<'_>) -> Result<(), Error> {
        let number = self.number_of(savepoint)?;
        self.note(self.handle.release(number))
    }

    /// Commits. Whatever it returns, the transaction has ended.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when it lost to another one, now or in an earlier statement;
    /// [`ErrorKind::Statement`] when an earlier statement failed for another reason;
    /// [`ErrorKind::Connection`] when the connection was lost, and then it is unknown whether the
    /// commit took effect. After any other error nothing was committed.
    pub fn commit(self) -> Result<(), Error> {
        let error = match self.handle.commit() {
            Ok(()) => return Ok(()),
            Err(error) => Error::from(error),
        };
        // The host refuses it because a statement had failed, whose error was not passed on.
        match self.conflict.into_inner() {
            Some(conflict) if error.kind() == ErrorKind::Statement => Err(conflict),
            _ => Err(error),
        }
    }

    /// Rolls back, as dropping does, and tells whether that went well.
    ///
    /// # Errors
    /// What the database or the host refused. The transaction has ended all the same.
    pub fn rollback(self) -> Result<(), Error> {
        Ok(self.handle.rollback()?)
    }

    /// Passes on the result of a call, and remembers a conflict.
    pub(super) fn note<T>(&self, result: Result<T, wit::Error>) -> Result<T, Error> {
        result.map_err(|error| {
            let error = Error::from(error);
            if error.is_conflict() {
                self.conflict.replace(Some(error.clone()));
            }
            error
        })
    }

    /// The host knows a savepoint only by its number within a transaction.
    fn number_of(&self, savepoint: Savepoint<'_>) -> Result<u32, Error> {
        if ptr::eq(savepoint.transaction, self) {
            return Ok(savepoint.number);
        }
        Err(Error::new(ErrorKind::Closed, "the savepoint belongs to another transaction"))
    }
}

impl retry::Attempt for Transaction {
    fn conflict(&self) -> Option<Error> {
        self.conflict.borrow().clone()
    }

    fn commit(self) -> Result<(), Error> {
        Self::commit(self)
    }
}
