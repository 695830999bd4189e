//! What SQLite's own parser knows of a statement before it runs, which sqlx does not tell:
//! whether it only reads, where it ends, and how its parameters are written.
//!
//! The only module of this crate with `unsafe` code of SQLite's. `libsqlite3-sys` is at the
//! version that sqlx links.
#![expect(unsafe_code, reason = "sqlx has no safe way to ask sqlite3_stmt_readonly and the tail")]

use std::ffi::{CStr, c_char, c_int};
use std::ptr;

use libsqlite3_sys as ffi;
use sqlx::sqlite::LockedSqliteHandle;

use super::super::statement::is_blank_sqlite;
use crate::interfaces::db::{Error, ErrorKind, error};

/// What a statement is.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    /// It changes no row of the database file (`sqlite3_stmt_readonly`).
    pub(super) read_only: bool,
    /// How many parameters it takes.
    pub(super) parameters: usize,
    /// Names of its columns, and their declared types where they have one.
    pub(super) columns: Vec<(String, Option<String>)>,
}

/// Compiles a text that holds one statement, and forgets it again.
///
/// # Errors
/// Where SQLite does not understand it, where more follows the first statement (sqlx would
/// run it), and where its parameters are not all written `$1`, `$2` … (or `?1`, or all `?`).
pub(super) fn prepare(handle: &mut LockedSqliteHandle<'_>, sql: &str) -> Result<Prepared, Error> {
    let (statement, length) = Compiled::new(handle, sql)?;
    if !is_blank_sqlite(sql.get(length..).unwrap_or_default()) {
        let message = "the text holds more than one statement: run them one by one, in a transaction of `begin` \
                       if they belong together";
        return Err(error::new(ErrorKind::Statement, message));
    }
    Ok(Prepared {
        read_only: statement.read_only(),
        parameters: count(&statement.parameters())?,
        columns: statement.columns(),
    })
}

/// Bounds the bytes of every value and row of a connection. SQLite computes them in the host's
/// memory: a short statement can ask for a gigabyte of zeros.
pub(super) fn limit_length(handle: &mut LockedSqliteHandle<'_>, bytes: u64) {
    let bytes = c_int::try_from(bytes).unwrap_or(c_int::MAX);
    // SAFETY: the handle is an open connection, and the lock keeps sqlx's thread from using it.
    // SQLite itself cuts what is more than it was compiled for.
    let _before =
        unsafe { ffi::sqlite3_limit(handle.as_raw_handle().as_ptr(), ffi::SQLITE_LIMIT_LENGTH, bytes) };
}

/// Parameters by SQLite's own names for them; `None` for `?` and for numbers left out.
fn count(names: &[Option<String>]) -> Result<usize, Error> {
    if names.iter().all(Option::is_none) {
        return Ok(names.len());
    }
    let advice = "write parameters as $1, $2 and so on, without a gap, or all of them as ?";
    let refused = |what: String| error::new(ErrorKind::Statement, format!("{what}: {advice}"));
    let mut numbers = Vec::new();
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
    match (1..=highest.min(numbers.len() + 1)).find(|number| !numbers.contains(number)) {
        Some(missing) => Err(refused(format!("the statement has no parameter ${missing} but ${highest}"))),
        None => Ok(highest),
    }
}

/// A compiled statement, finalized when dropped. It borrows the connection's handle, so that
/// nobody else can use the connection in the meantime.
struct Compiled<'a, 'h> {
    statement: *mut ffi::sqlite3_stmt,
    _handle: &'a mut LockedSqliteHandle<'h>,
}

impl<'a, 'h> Compiled<'a, 'h> {
    /// The first statement of the text, and where it ends.
    fn new(handle: &'a mut LockedSqliteHandle<'h>, sql: &str) -> Result<(Self, usize), Error> {
        let too_long = |_| error::new(ErrorKind::Statement, "the statement is longer than SQLite can read");
        let length = c_int::try_from(sql.len()).map_err(too_long)?;
        let start: *const c_char = sql.as_ptr().cast();
        let (mut statement, mut tail) = (ptr::null_mut(), ptr::null());
        let db = handle.as_raw_handle().as_ptr();
        // SAFETY: `db` is an open connection, and the lock keeps sqlx's thread from using it.
        // `start` points to `length` bytes that outlive the call, and the other two pointers
        // to variables of the types that SQLite writes.
        let code = unsafe { ffi::sqlite3_prepare_v2(db, start, length, &raw mut statement, &raw mut tail) };
        if code != ffi::SQLITE_OK {
            // SAFETY: as above, and no other call has been made on `db` since.
            return Err(unsafe { last_error(db, sql) });
        }
        if statement.is_null() {
            return Err(error::new(ErrorKind::Statement, "the statement is empty"));
        }
        let end = if tail.is_null() { sql.len() } else { tail.addr() - start.addr() };
        Ok((Self { statement, _handle: handle }, end))
    }

    fn read_only(&self) -> bool {
        // SAFETY: `statement` is not null, and is finalized only when `self` is dropped.
        unsafe { ffi::sqlite3_stmt_readonly(self.statement) != 0 }
    }

    fn parameters(&self) -> Vec<Option<String>> {
        // SAFETY: as in `read_only`.
        let count = unsafe { ffi::sqlite3_bind_parameter_count(self.statement) };
        // SAFETY: as in `read_only`; the text is SQLite's and lives as long as the statement.
        (1..=count).map(|at| unsafe { text(ffi::sqlite3_bind_parameter_name(self.statement, at)) }).collect()
    }

    fn columns(&self) -> Vec<(String, Option<String>)> {
        // SAFETY: as in `read_only`.
        let count = unsafe { ffi::sqlite3_column_count(self.statement) };
        let column = |at| {
            // SAFETY: as in `read_only`; `at` is below the number of columns. A text lives
            // until the next call for the same column, and is copied before.
            unsafe {
                let name = text(ffi::sqlite3_column_name(self.statement, at));
                (name.unwrap_or_default(), text(ffi::sqlite3_column_decltype(self.statement, at)))
            }
        };
        (0..count).map(column).collect()
    }
}

impl Drop for Compiled<'_, '_> {
    fn drop(&mut self) {
        // SAFETY: `statement` came from `sqlite3_prepare_v2`, and nothing else finalizes it.
        // The code it returns is that of the last run, and it never ran.
        let _code = unsafe { ffi::sqlite3_finalize(self.statement) };
    }
}

/// # Safety
/// `db` is an open connection that nobody else uses.
unsafe fn last_error(db: *mut ffi::sqlite3, sql: &str) -> Error {
    // SAFETY: the caller's.
    let (code, offset, message) = unsafe {
        (
            ffi::sqlite3_extended_errcode(db),
            ffi::sqlite3_error_offset(db),
            text(ffi::sqlite3_errmsg(db)).unwrap_or_default(),
        )
    };
    let before = usize::try_from(offset).ok().and_then(|offset| sql.get(..offset));
    let position = before.and_then(|before| u32::try_from(before.chars().count() + 1).ok());
    Error { position, ..error::sqlite(code, &message) }
}

/// # Safety
/// `text` is null or a text that ends with NUL and stays as it is during the call.
unsafe fn text(text: *const c_char) -> Option<String> {
    // SAFETY: the caller's.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Result<usize, String> {
        let name = |name: &&str| (!name.is_empty()).then(|| (*name).to_owned());
        count(&names.iter().map(name).collect::<Vec<_>>()).map_err(|error| error.message)
    }

    #[test]
    fn parameters_are_counted_by_their_numbers() {
        assert_eq!(of(&[]), Ok(0));
        assert_eq!(of(&["", ""]), Ok(2));
        assert_eq!(of(&["$1"]), Ok(1));
        assert_eq!(of(&["$2", "$1", "?1"]), Ok(2));
    }

    #[test]
    fn parameters_that_could_be_given_the_wrong_value_are_refused() {
        for names in [
            &["$0"][..],
            &["$1", ""],
            &["?1", "", "?3"],
            &["$1", "$3"],
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
