//! What a query returns.

use std::rc::Rc;

use super::{Error, ErrorKind, FromValue, Value};
use crate::bindings::innkeeper::plugin::db as wit;

/// A column of a query's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The database's own name of its type, such as `"int8"` or `"TEXT"`.
    pub type_name: String,
}

/// What a query returned: columns, and rows of values.
///
/// ```no_run
/// # fn f() -> Result<(), innkeeper_sdk::db::Error> {
/// use innkeeper_sdk::{db, params};
///
/// for row in &db::query("SELECT id, email FROM users WHERE active = $1", params![true])? {
///     let (id, email): (i64, Option<&str>) = (row.get("id")?, row.get("email")?);
/// }
/// let total: i64 = db::query("SELECT count(*) FROM users", params![])?.scalar()?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    columns: Rc<[Column]>,
    rows: Vec<Vec<Value>>,
}

impl Rows {
    pub(super) fn new(columns: Rc<[Column]>, rows: Vec<Vec<Value>>) -> Self {
        Self { columns, rows }
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True when there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The columns, in the order of the statement.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The rows, in the order of the database.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Row<'_>> {
        self.rows.iter().map(|values| Row { columns: &self.columns, values })
    }

    /// The row of this number, from 0.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Row<'_>> {
        self.rows.get(index).map(|values| Row { columns: &self.columns, values })
    }

    /// The first row.
    #[must_use]
    pub fn first(&self) -> Option<Row<'_>> {
        self.get(0)
    }

    /// The first column of the first row.
    ///
    /// # Errors
    /// [`ErrorKind::Conversion`] when there is no row, or the value is not a `T`.
    pub fn scalar<'a, T: FromValue<'a>>(&'a self) -> Result<T, Error> {
        self.first()
            .ok_or_else(|| Error::new(ErrorKind::Conversion, "expected a row, but the query returned none"))?
            .get(0)
    }
}

impl From<wit::RowSet> for Rows {
    fn from(set: wit::RowSet) -> Self {
        Self::new(columns_of(set.columns), set.rows)
    }
}

pub(super) fn columns_of(columns: Vec<wit::Column>) -> Rc<[Column]> {
    columns.into_iter().map(|wit::Column { name, type_name }| Column { name, type_name }).collect()
}

/// Row by row, each with values of its own.
impl IntoIterator for Rows {
    type Item = OwnedRow;
    type IntoIter = Box<dyn Iterator<Item = OwnedRow>>;

    fn into_iter(self) -> Self::IntoIter {
        let Self { columns, rows } = self;
        Box::new(rows.into_iter().map(move |values| OwnedRow { columns: Rc::clone(&columns), values }))
    }
}

impl<'a> IntoIterator for &'a Rows {
    type Item = Row<'a>;
    type IntoIter = Box<dyn Iterator<Item = Row<'a>> + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}

/// A row of a query's result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row<'a> {
    columns: &'a [Column],
    values: &'a [Value],
}

impl<'a> Row<'a> {
    /// The value of a column, by its name or its number from 0.
    ///
    /// # Errors
    /// [`ErrorKind::Conversion`] when there is no such column, or its value is not a `T`.
    pub fn get<T: FromValue<'a>>(&self, column: impl ColumnIndex) -> Result<T, Error> {
        let index =
            column.position(self.columns).map_err(|message| Error::new(ErrorKind::Conversion, message))?;
        T::from_value(&self.values[index]).map_err(|message| {
            let name = &self.columns[index].name;
            Error::new(ErrorKind::Conversion, format!("column {name:?}: {message}"))
        })
    }

    /// The columns of the row.
    #[must_use]
    pub fn columns(&self) -> &'a [Column] {
        self.columns
    }

    /// The values of the row.
    #[must_use]
    pub fn values(&self) -> &'a [Value] {
        self.values
    }
}

/// A row that has its values to itself: of a [`Cursor`](super::Cursor), or of [`Rows`] that are
/// taken apart.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnedRow {
    columns: Rc<[Column]>,
    values: Vec<Value>,
}

impl OwnedRow {
    /// The value of a column, by its name or its number from 0.
    ///
    /// # Errors
    /// [`ErrorKind::Conversion`] when there is no such column, or its value is not a `T`.
    pub fn get<'a, T: FromValue<'a>>(&'a self, column: impl ColumnIndex) -> Result<T, Error> {
        self.as_row().get(column)
    }

    /// The same as a view.
    #[must_use]
    pub fn as_row(&self) -> Row<'_> {
        Row { columns: &self.columns, values: &self.values }
    }

    /// The columns of the row.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The values of the row.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// The values of the row, to keep.
    #[must_use]
    pub fn into_values(self) -> Vec<Value> {
        self.values
    }
}

/// What names a column: its name, or its number from 0.
pub trait ColumnIndex {
    /// The column's number.
    ///
    /// # Errors
    /// That there is no such column, and which ones there are.
    fn position(&self, columns: &[Column]) -> Result<usize, String>;
}

impl ColumnIndex for usize {
    fn position(&self, columns: &[Column]) -> Result<usize, String> {
        if *self < columns.len() {
            return Ok(*self);
        }
        Err(format!("there is no column {self}; the result has {} columns, numbered from 0", columns.len()))
    }
}

impl ColumnIndex for &str {
    fn position(&self, columns: &[Column]) -> Result<usize, String> {
        columns.iter().position(|column| column.name == *self).ok_or_else(|| {
            let names: Vec<String> = columns.iter().map(|column| format!("{:?}", column.name)).collect();
            format!("there is no column {self:?}; the columns are {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Rows {
        let column = |name: &str| wit::Column { name: name.into(), type_name: "t".into() };
        Rows::from(wit::RowSet {
            columns: vec![column("id"), column("email")],
            rows: vec![
                vec![Value::Integer(1), Value::Text("a@b".into())],
                vec![Value::Integer(2), Value::Null],
            ],
        })
    }

    #[test]
    fn columns_are_read_by_name_and_by_number() {
        let rows = rows();
        let read: Vec<(i64, Option<&str>)> =
            rows.iter().map(|row| (row.get("id").unwrap(), row.get(1).unwrap())).collect();
        assert_eq!(read, [(1, Some("a@b")), (2, None)]);
        assert_eq!(rows.scalar::<u8>().unwrap(), 1);
        assert_eq!((&rows).into_iter().count(), rows.len());
        let owned: Vec<OwnedRow> = rows.into_iter().collect();
        assert_eq!(owned[0].get::<&str>("email").unwrap(), "a@b");
        assert_eq!(owned[1].as_row().get::<i64>("id").unwrap(), 2);
    }

    #[test]
    fn an_error_names_the_column_and_what_is_wrong() {
        let rows = rows();
        let second = rows.get(1).unwrap();
        let message = |error: Error| {
            assert_eq!(error.kind(), ErrorKind::Conversion);
            error.message().to_owned()
        };
        assert_eq!(
            message(second.get::<String>("email").unwrap_err()),
            "column \"email\": expected text, found NULL; read it as an `Option` if NULL is expected"
        );
        assert_eq!(
            message(second.get::<String>("mail").unwrap_err()),
            "there is no column \"mail\"; the columns are \"id\", \"email\""
        );
        assert_eq!(
            message(second.get::<String>(2).unwrap_err()),
            "there is no column 2; the result has 2 columns, numbered from 0"
        );
        let none = Rows::new(columns_of(vec![]), vec![]);
        assert!(message(none.scalar::<i64>().unwrap_err()).contains("returned none"));
    }
}
