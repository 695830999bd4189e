//! The rows of a statement, as they arrive, up to the bound of the plugin.
//!
//! What a database can bring has no bound, and the guest's memory limit is consulted only when
//! the rows are copied into the guest: they must not fill the host's memory before.

use futures_util::TryStreamExt as _;
use futures_util::stream::BoxStream;

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
pub(super) async fn gather<R>(
    mut stream: BoxStream<'_, Result<R, sqlx::Error>>,
    limit: Bounds,
    mut decode: impl FnMut(&R) -> Result<Vec<Value>, Error>,
) -> Result<Vec<Vec<Value>>, Cut> {
    let mut rows = Vec::new();
    let mut bytes: u64 = 0;
    while let Some(row) = stream.try_next().await.map_err(Cut::Database)? {
        let row = decode(&row).map_err(Cut::Refused)?;
        bytes = bytes.saturating_add(ROW + row.iter().map(size).sum::<u64>());
        if bytes > limit.bytes {
            return Err(Cut::Refused(too_large(limit, rows.len())));
        }
        if rows.len() as u64 >= limit.rows {
            return Err(Cut::Refused(too_many(limit.rows)));
        }
        rows.push(row);
    }
    Ok(rows)
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
