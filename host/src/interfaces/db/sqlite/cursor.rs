//! Statements, compiled and run on the connection's thread, and cursors: statements that stay
//! open between two fetches.

use std::collections::BTreeMap;
use std::rc::Rc;

use rusqlite::types::Value as Stored;
use rusqlite::{CachedStatement, Connection, Row, Rows, Statement};
use self_cell::{MutBorrow, self_cell};

use super::super::grant::Bounds;
use super::super::rows::Gathered;
use super::values;
use crate::interfaces::db::{Column, Error, ErrorKind, Value, error};

/// The share of the largest result that one fetch may bring: what comes next should be on its
/// way before the guest has to hold much.
const SHARE_OF_A_FETCH: u64 = 4;

/// What goes wrong on the thread: by SQLite's word, which is still to be explained, or by ours.
#[derive(Debug)]
pub(super) enum Fault {
    Sqlite(rusqlite::Error),
    Told(Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Told(error)
    }
}

self_cell!(
    /// A compiled statement with the connection that it belongs to.
    struct Prepared {
        owner: Rc<Connection>,
        #[covariant]
        dependent: CachedStatement,
    }
);

self_cell!(
    /// A statement in the middle of its rows. Dropped, it is reset.
    struct Stepping {
        owner: MutBorrow<Prepared>,
        #[covariant]
        dependent: Rows,
    }
);

/// The open cursors of a transaction, by their numbers.
#[derive(Default)]
pub(super) struct Cursors(BTreeMap<u64, Cursor>);

struct Cursor {
    /// `None` at the end of its rows.
    stepping: Option<Stepping>,
    columns: usize,
    /// A row that was read and not yet fetched.
    pending: Option<Vec<Value>>,
    /// The newest savepoint when it was opened; 0 where there was none.
    savepoint: u32,
}

impl Cursors {
    /// Opens a cursor and returns its columns. `savepoint` is the number of the newest one.
    pub(super) fn open(
        &mut self,
        number: u64,
        connection: &Rc<Connection>,
        sql: &str,
        params: &[Stored],
        savepoint: u32,
    ) -> Result<Vec<Column>, Fault> {
        let mut prepared =
            Prepared::try_new(Rc::clone(connection), |connection| connection.prepare_cached(sql))?;
        prepared.with_dependent_mut(|_, statement| {
            if !reads(statement) || statement.column_count() == 0 {
                return Err(not_for_cursors().into());
            }
            let numbers = parameters(statement, params.len())?;
            bind(statement, &numbers, params)
        })?;
        let mut stepping = Stepping::new(MutBorrow::new(prepared), |prepared| {
            prepared.borrow_mut().with_dependent_mut(|_, statement| statement.raw_query())
        });
        // The first step sees to it that the columns are those of the tables as they are.
        let first = stepping.with_dependent_mut(|_, rows| match rows.next()? {
            None => Ok::<_, Fault>(None),
            Some(row) => {
                let columns = columns(row.as_ref(), Some(row));
                let values = read(row, columns.len())?;
                Ok(Some((columns, values)))
            }
        })?;
        let (columns, cursor) = match first {
            Some((columns, row)) => {
                let (count, stepping) = (columns.len(), Some(stepping));
                (columns, Cursor { stepping, columns: count, pending: Some(row), savepoint })
            }
            None => {
                let prepared = stepping.into_owner().into_inner();
                let columns = prepared.with_dependent(|_, statement| columns(statement, None));
                (columns, Cursor { stepping: None, columns: 0, pending: None, savepoint })
            }
        };
        self.0.insert(number, cursor);
        Ok(columns)
    }

    /// At most `limit` further rows; none only at the end.
    pub(super) fn fetch(
        &mut self,
        number: u64,
        limit: usize,
        bounds: Bounds,
    ) -> Result<Vec<Vec<Value>>, Fault> {
        let ended = || error::new(ErrorKind::Closed, "the cursor has ended");
        self.0.get_mut(&number).ok_or_else(ended)?.fetch(limit, bounds)
    }

    pub(super) fn close(&mut self, number: u64) {
        self.0.remove(&number);
    }

    pub(super) fn close_all(&mut self) {
        self.0.clear();
    }

    /// Ends those that were opened after the savepoint was made.
    pub(super) fn roll_back_to(&mut self, savepoint: u32) {
        self.0.retain(|_, cursor| cursor.savepoint < savepoint);
    }
}

impl Cursor {
    fn fetch(&mut self, limit: usize, bounds: Bounds) -> Result<Vec<Vec<Value>>, Fault> {
        let mut gathered = Gathered::new(bounds);
        if let Some(row) = self.pending.take() {
            gathered.push(row)?;
        }
        let (columns, pending) = (self.columns, &mut self.pending);
        let Some(stepping) = &mut self.stepping else { return Ok(gathered.into_rows()) };
        let at_end = stepping.with_dependent_mut(|_, rows| {
            while gathered.len() < limit && gathered.bytes() <= bounds.bytes / SHARE_OF_A_FETCH {
                let Some(row) = rows.next()? else { return Ok(true) };
                *pending = gathered.push_or_return(read(row, columns)?)?;
                if pending.is_some() {
                    break;
                }
            }
            Ok::<_, Fault>(false)
        })?;
        if at_end {
            self.stepping = None;
        }
        Ok(gathered.into_rows())
    }
}

fn not_for_cursors() -> Error {
    let message =
        "a cursor reads, and this statement may write or has no rows: run it with `query` or `execute`";
    error::new(ErrorKind::Statement, message)
}

/// True where a statement changes nothing. An explained one does not run.
pub(super) fn reads(statement: &Statement<'_>) -> bool {
    statement.readonly() || statement.is_explain() != 0
}

/// Gathers all rows of a statement whose parameters are bound.
pub(super) fn gather(
    statement: &mut Statement<'_>,
    bounds: Bounds,
) -> Result<(Vec<Column>, Vec<Vec<Value>>), Fault> {
    let mut gathered = Gathered::new(bounds);
    let mut found: Option<Vec<Column>> = None;
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        let columns = found.get_or_insert_with(|| columns(row.as_ref(), Some(row)));
        gathered.push(read(row, columns.len())?)?;
    }
    drop(rows);
    Ok((found.unwrap_or_else(|| columns(statement, None)), gathered.into_rows()))
}

/// Runs a statement whose parameters are bound to its end, whatever rows it returns.
pub(super) fn run_to_end(statement: &mut Statement<'_>) -> rusqlite::Result<()> {
    let mut rows = statement.raw_query();
    while rows.next()?.is_some() {}
    Ok(())
}

fn read(row: &Row<'_>, columns: usize) -> Result<Vec<Value>, Fault> {
    let statement: &Statement<'_> = row.as_ref();
    let value = |index| {
        let value = row.get_ref(index)?;
        Ok(values::decode(|| statement.column_name(index).unwrap_or_default(), value)?)
    };
    (0..columns).map(value).collect()
}

/// The columns of a statement that has been stepped, so that they are those of the tables as
/// they are: with the type that a column declares; for an expression, that of its first value.
fn columns(statement: &Statement<'_>, first: Option<&Row<'_>>) -> Vec<Column> {
    let column = |(index, column): (usize, rusqlite::Column<'_>)| {
        let of_value = || first.and_then(|row| row.get_ref(index).ok()).map_or("NULL", values::class);
        Column {
            name: column.name().to_owned(),
            type_name: column.decl_type().unwrap_or_else(of_value).to_owned(),
        }
    };
    statement.columns().into_iter().enumerate().map(column).collect()
}

/// For each parameter of SQLite's, in order, which of those given it is, from 1.
///
/// # Errors
/// `statement`, where the parameters are not all written `$1`, `$2` … (or `?1`, or all `?`), or
/// their number is not that of those given.
pub(super) fn parameters(statement: &Statement<'_>, given: usize) -> Result<Vec<usize>, Error> {
    let names: Vec<Option<&str>> =
        (1..=statement.parameter_count()).map(|at| statement.parameter_name(at)).collect();
    let numbers = numbers(&names)?;
    error::require_parameters(numbers.iter().copied().max().unwrap_or(0), given)?;
    Ok(numbers)
}

/// Gives every parameter its value.
pub(super) fn bind(statement: &mut Statement<'_>, numbers: &[usize], params: &[Stored]) -> Result<(), Fault> {
    for (at, number) in numbers.iter().enumerate() {
        statement.raw_bind_parameter(at + 1, &params[number - 1])?;
    }
    Ok(())
}

/// Parameters by SQLite's own names for them; `None` for `?` and for numbers left out.
fn numbers(names: &[Option<&str>]) -> Result<Vec<usize>, Error> {
    if names.iter().all(Option::is_none) {
        return Ok((1..=names.len()).collect());
    }
    let advice = "write parameters as $1, $2 and so on, without a gap, or all of them as ?";
    let refused = |what: String| error::new(ErrorKind::Statement, format!("{what}: {advice}"));
    let mut numbers = Vec::with_capacity(names.len());
    for name in names {
        let Some(name) = name else {
            return Err(refused(
                "the statement mixes `?` with numbered parameters, or leaves a number out".into(),
            ));
        };
        let digits = name.strip_prefix(['$', '?']).unwrap_or_default();
        match digits.parse::<usize>() {
            Ok(number) if number > 0 && digits.bytes().all(|b| b.is_ascii_digit()) => numbers.push(number),
            _ if name.contains("::") => {
                let place = name.split("::").next().unwrap_or_default();
                return Err(refused(format!(
                    "SQLite has no `::` casts, write CAST({place} AS …) instead of `{name}`"
                )));
            }
            _ => return Err(refused(format!("`{name}` is not a parameter that can be given a value"))),
        }
    }
    let highest = numbers.iter().copied().max().unwrap_or(0);
    let mut used = vec![false; names.len() + 1];
    for number in &numbers {
        if let Some(used) = used.get_mut(number - 1) {
            *used = true;
        }
    }
    match (1..=highest).zip(used).find(|(_, used)| !used) {
        Some((missing, _)) => {
            Err(refused(format!("the statement has no parameter ${missing} but ${highest}")))
        }
        None => Ok(numbers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Result<Vec<usize>, String> {
        let names: Vec<_> = names.iter().map(|name| (!name.is_empty()).then_some(*name)).collect();
        numbers(&names).map_err(|error| error.message)
    }

    #[test]
    fn parameters_are_known_by_their_numbers() {
        assert_eq!(of(&[]), Ok(vec![]));
        assert_eq!(of(&["", ""]), Ok(vec![1, 2]));
        assert_eq!(of(&["$1"]), Ok(vec![1]));
        assert_eq!(of(&["$2", "$1"]), Ok(vec![2, 1]));
        assert_eq!(of(&["$1", "$01"]), Ok(vec![1, 1]));
    }

    #[test]
    fn parameters_that_could_be_given_the_wrong_value_are_refused() {
        for names in [
            &["$0"][..],
            &["$1", ""],
            &["?1", "", "?3"],
            &["$1", "$3"],
            &["$3", "$1"],
            &[":a"],
            &["@a"],
            &["$a"],
            &["$1a"],
            &["$99999999999999999999"],
            &["$+1"],
            &["$4000000000"],
        ] {
            assert!(of(names).is_err(), "{names:?}");
        }
        assert!(of(&["$1::text"]).unwrap_err().contains("CAST($1 AS"));
    }
}
