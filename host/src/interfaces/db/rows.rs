//! The rows of a statement, as they arrive, up to the bound of the plugin.
//!
//! What a database can bring has no bound, and the guest's memory limit is consulted only when
//! the rows are copied into the guest: they must not fill the host's memory before.

use futures_util::TryStreamExt as _;
use futures_util::stream::BoxStream;
use sqlx::Either;

use super::error::Failure;
use super::grant::Bounds;
use super::{Error, ErrorKind, Value, error};

/// Bytes of a row in the guest besides its values: the address of a list and its length.
const ROW: u64 = 8;
/// Bytes of a value in the guest: which it is, and a number or the address of a text and its
/// length.
const VALUE: u64 = 16;

/// Why not all rows were gathered.
pub(super) enum Cut {
    /// The database said so, and the statement is over.
    Database(sqlx::Error),
    /// Its rows cannot be given to the guest, and it may still be running.
    Refused(Error),
}

impl From<Cut> for Failure {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Database(error) => error.into(),
            Cut::Refused(error) => Self { cut_short: true, ..error.into() },
        }
    }
}

/// Reads rows by `decode` until there are no more, or until they are more than `limit` allows.
/// What a statement brings besides is passed over here: sqlx's own way to do so takes a layer of
/// streams more, at every row.
pub(super) async fn gather<D, R>(
    mut stream: BoxStream<'_, Result<Either<D, R>, sqlx::Error>>,
    limit: Bounds,
    mut decode: impl FnMut(&R) -> Result<Vec<Value>, Error>,
) -> Result<Vec<Vec<Value>>, Cut> {
    let mut rows = Gathered::new(limit);
    while let Some(brought) = stream.try_next().await.map_err(Cut::Database)? {
        if let Either::Right(row) = brought {
            let row = decode(&row).map_err(Cut::Refused)?;
            rows.push(row).map_err(Cut::Refused)?;
        }
    }
    Ok(rows.into_rows())
}

/// Rows read one by one, as many as the plugin may have.
pub(super) struct Gathered {
    rows: Vec<Vec<Value>>,
    bytes: u64,
    bounds: Bounds,
}

impl Gathered {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { rows: Vec::new(), bytes: 0, bounds }
    }

    /// # Errors
    /// `limit-exceeded`, where the rows are more than the plugin may have.
    pub(super) fn push(&mut self, row: Vec<Value>) -> Result<(), Error> {
        self.bytes = self.bytes.saturating_add(row_size(&row));
        if self.bytes > self.bounds.bytes {
            return Err(too_large(self.bounds, self.rows.len()));
        }
        if self.rows.len() as u64 >= self.bounds.rows {
            return Err(too_many(self.bounds.rows));
        }
        self.rows.push(row);
        Ok(())
    }

    /// Takes the row, or gives it back where it does not fit.
    ///
    /// # Errors
    /// `limit-exceeded`, where not even this row alone fits.
    pub(super) fn push_or_return(&mut self, row: Vec<Value>) -> Result<Option<Vec<Value>>, Error> {
        if !self.rows.is_empty() && self.bytes.saturating_add(row_size(&row)) > self.bounds.bytes {
            return Ok(Some(row));
        }
        self.push(row).map(|()| None)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Bytes in the guest so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn into_rows(self) -> Vec<Vec<Value>> {
        self.rows
    }
}

/// Bytes of a row in the guest.
pub(super) fn row_size(row: &[Value]) -> u64 {
    ROW + row.iter().map(size).sum::<u64>()
}

/// Bytes of a value in the guest.
fn size(value: &Value) -> u64 {
    let beside = match value {
        Value::Decimal(text)
        | Value::Text(text)
        | Value::Uuid(text)
        | Value::Json(text)
        | Value::Other(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::BooleanArray(elements) => elements.len() * 2,
        Value::IntegerArray(elements) => elements.len() * 16,
        Value::FloatArray(elements) => elements.len() * 16,
        Value::TextArray(elements) => {
            elements.iter().map(|element| 12 + element.as_ref().map_or(0, String::len)).sum()
        }
        Value::Null
        | Value::Boolean(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Date(_)
        | Value::Time(_)
        | Value::Timestamp(_)
        | Value::Instant(_) => 0,
    };
    VALUE + beside as u64
}

fn too_many(limit: u64) -> Error {
    let message = format!("the result has more than {limit} rows (`max_rows`)");
    let hint = "read less with LIMIT, in pages by key (WHERE id > $1 ORDER BY id LIMIT 1000), or by a cursor";
    Error { hint: Some(hint.to_owned()), ..error::new(ErrorKind::LimitExceeded, message) }
}

fn too_large(limit: Bounds, rows: usize) -> Error {
    let Bounds { bytes, bytes_key, .. } = limit;
    let message = format!("the result has more than {bytes} bytes (`{bytes_key}`); {rows} rows of it fit");
    let hint = format!(
        "read less with LIMIT or fewer columns, in pages by key (WHERE id > $1 ORDER BY id LIMIT 1000), or by a \
         cursor, or have the operator raise `{bytes_key}` of the plugin"
    );
    Error { hint: Some(hint), ..error::new(ErrorKind::LimitExceeded, message) }
}
