//! Results that are read in parts.

use std::rc::Rc;

use super::rows::columns_of;
use super::{Column, Error, OwnedRow, Rows, Transaction};
use crate::bindings::innkeeper::plugin::db as wit;

/// An open cursor: a result that is read in parts, so that any number of rows passes in little
/// memory. Opened by [`Transaction::open_cursor`].
///
/// It borrows its transaction, which can run other statements meanwhile, and is closed when it is
/// dropped.
#[derive(Debug)]
#[must_use = "a cursor reads nothing until its rows are fetched"]
pub struct Cursor<'tx> {
    handle: wit::Cursor,
    columns: Rc<[Column]>,
    transaction: &'tx Transaction,
}

impl<'tx> Cursor<'tx> {
    pub(super) fn new(transaction: &'tx Transaction, handle: wit::Cursor) -> Self {
        let columns = columns_of(handle.columns());
        Self { handle, columns, transaction }
    }

    /// The columns, in the order of the statement.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The next rows, at most `limit` of them. Only an empty answer is the end: fewer than `limit`
    /// may come before.
    ///
    /// # Errors
    /// What the database or the host refused: the transaction has failed then.
    /// [`ErrorKind::Closed`](super::ErrorKind::Closed) when the cursor has ended, because its
    /// transaction was rolled back to a savepoint from before it.
    pub fn fetch(&self, limit: u32) -> Result<Rows, Error> {
        let rows = self.transaction.note(self.handle.fetch(limit))?;
        Ok(Rows::new(Rc::clone(&self.columns), rows))
    }

    /// All further rows one by one, fetched `batch` at a time. The first error is the last item.
    ///
    /// A larger batch is faster, as each costs a call of the host and a round trip to the database, and
    /// takes more memory; 1000 is a good start.
    pub fn rows(self, batch: u32) -> impl Iterator<Item = Result<OwnedRow, Error>> + use<'tx> {
        InBatches::new(move || self.fetch(batch)).flatten_rows()
    }
}

/// Batches of rows until an empty one or an error.
struct InBatches<F> {
    fetch: F,
    ended: bool,
}

impl<F: FnMut() -> Result<Rows, Error>> InBatches<F> {
    fn new(fetch: F) -> Self {
        Self { fetch, ended: false }
    }

    fn flatten_rows(self) -> impl Iterator<Item = Result<OwnedRow, Error>> {
        self.flat_map(|batch| {
            let (rows, error) = match batch {
                Ok(rows) => (Some(rows), None),
                Err(error) => (None, Some(error)),
            };
            rows.into_iter().flatten().map(Ok).chain(error.map(Err))
        })
    }
}

impl<F: FnMut() -> Result<Rows, Error>> Iterator for InBatches<F> {
    type Item = Result<Rows, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let batch = (self.fetch)();
        self.ended = batch.as_ref().is_ok_and(Rows::is_empty) || batch.is_err();
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{ErrorKind, Value};

    fn batch(numbers: &[i64]) -> Result<Rows, Error> {
        let columns = columns_of(vec![wit::Column { name: "n".into(), type_name: "int8".into() }]);
        Ok(Rows::new(columns, numbers.iter().map(|n| vec![Value::Integer(*n)]).collect()))
    }

    #[test]
    fn rows_come_one_by_one_until_a_batch_is_empty() {
        // A batch that is not full is not yet the end.
        let mut batches =
            vec![batch(&[1, 2]), batch(&[3]), batch(&[4, 5]), batch(&[]), batch(&[6])].into_iter();
        let rows = InBatches::new(|| batches.next().unwrap()).flatten_rows();
        let numbers: Vec<i64> = rows.map(|row| row.unwrap().get("n").unwrap()).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
        assert_eq!(batches.len(), 1, "after the end nothing is asked for");
    }

    #[test]
    fn an_error_is_the_last_item() {
        let lost = Err(Error::new(ErrorKind::Connection, "lost"));
        let mut batches = vec![batch(&[1]), lost, batch(&[2])].into_iter();
        let rows: Vec<_> = InBatches::new(|| batches.next().unwrap()).flatten_rows().collect();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1].as_ref().unwrap_err().kind(), ErrorKind::Connection);
        assert_eq!(batches.len(), 1);
    }
}
