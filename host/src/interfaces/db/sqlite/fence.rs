//! The fence in a SQLite file: a table that plugins may read and never change (`guard`).

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::interfaces::db::fence::{KEPT, Pass};
use crate::interfaces::db::{Error, error};

/// The table. The name is the host's in every file that plugins are granted.
pub(super) const TABLE: &str = "innkeeper_fence";

/// `main` stands before the name, since a plugin may have a temporary table of any name.
const MAKE: &str = "CREATE TABLE IF NOT EXISTS main.innkeeper_fence (
    execution TEXT PRIMARY KEY,
    lease     INTEGER NOT NULL,
    raised_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID";

const RAISE: &str =
    "INSERT INTO main.innkeeper_fence (execution, lease, raised_at) VALUES (?1, ?2, unixepoch())
    ON CONFLICT (execution) DO UPDATE SET lease = excluded.lease, raised_at = excluded.raised_at
    WHERE lease < excluded.lease";

const FORGET: &str = "DELETE FROM main.innkeeper_fence WHERE raised_at < unixepoch() - ?1";

const LOOK: &str = "SELECT lease FROM main.innkeeper_fence WHERE execution = ?1";

/// Looks at the fence, in a transaction that is the writer: nobody can raise it before the end.
///
/// # Errors
/// `closed`, where a later attempt has begun.
pub(super) fn pass(connection: &Connection, pass: Pass) -> Result<(), Error> {
    let raised_to = connection.prepare_cached(LOOK).and_then(|mut look| {
        look.query_row([pass.execution.to_string()], |row| row.get::<_, i64>(0)).optional()
    });
    match raised_to {
        Ok(Some(lease)) if lease > pass.lease => Err(error::fenced_off()),
        Ok(_) => Ok(()),
        Err(error) => {
            let error = error::of_sqlite(&error);
            // It is made by whoever first raises it.
            if error.message.starts_with("no such table") { Ok(()) } else { Err(error) }
        }
    }
}

/// Raises the fence, in a transaction that is the writer.
pub(super) fn raise(connection: &Connection, to: Pass) -> rusqlite::Result<()> {
    connection.execute_batch(MAKE)?;
    connection.execute(FORGET, [i64::try_from(KEPT.as_secs()).unwrap_or(i64::MAX)])?;
    connection.execute(RAISE, params![to.execution.to_string(), to.lease])?;
    Ok(())
}
