//! What only PostgreSQL has: types of its own, sessions, roles, schemas and their hazards.

mod cursors;
mod grants;
mod lost;
mod sessions;
mod types;

use std::sync::Arc;

use innkeeper::interfaces::db::{Error, RowSet, Session, Value};

use crate::show;

/// The only value of the only row.
async fn one(session: &Arc<Session>, sql: &str, params: Vec<Value>) -> Value {
    let rows = session.query(sql.into(), params).await;
    let mut rows = rows.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    assert_eq!(rows.rows.len(), 1, "{sql}");
    rows.rows.remove(0).remove(0)
}

/// The first column of a result, as it is shown.
fn first_column(rows: Result<RowSet, Error>) -> Vec<String> {
    rows.unwrap().rows.iter().map(|row| show(&row[0])).collect()
}
