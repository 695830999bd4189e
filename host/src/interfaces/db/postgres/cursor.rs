//! Cursors: `DECLARE`, `FETCH` and `CLOSE` of the server.
//!
//! A cursor is BINARY, so that its rows have the same form as those of every other statement
//! even where they are fetched by the simple protocol, which takes one round trip. sqlx calls
//! that form text; only the bytes are looked at.

use std::collections::VecDeque;
use std::sync::Arc;

use sqlx::AssertSqlSafe;

use super::statements::Runnable;
use super::{Connection, row_of, scan};
use crate::interfaces::db::error::{self, Failure};
use crate::interfaces::db::grant::Bounds;
use crate::interfaces::db::rows;
use crate::interfaces::db::work::{Task, Work};
use crate::interfaces::db::{Column, ErrorKind, Value};

/// Rows of the first chunk, before anybody knows how large they are.
const FIRST_CHUNK: u64 = 8;

/// How much larger than the last a chunk may be: rows may grow.
const GROWTH: u64 = 8;

/// How many chunks would fit into the memory that a result may take.
const SPARE: u64 = 16;

/// After so many answers a guest reads to the end, most likely.
const READS_ON: u32 = 3;

/// An open cursor.
pub(super) struct Cursor {
    columns: Vec<Column>,
    runnable: Arc<Runnable>,
    /// The savepoint that was the last one when it was opened, 0 for none.
    pub(super) savepoint: u32,
    /// Rows that were read and are not asked for yet, and their bytes.
    ahead: VecDeque<Vec<Value>>,
    ahead_bytes: u64,
    /// How many answers in a row were full, and for how many rows the last one was asked.
    full: u32,
    limit: u64,
    /// Reading a row does nothing to it.
    only_reads: bool,
    /// Of the last chunk: rows, and the bytes of one.
    chunk: u64,
    row_bytes: u64,
    /// The server has no more rows.
    ended: bool,
}

impl Connection {
    /// Opens a cursor and returns its columns.
    pub(in crate::interfaces::db) async fn open_cursor(
        &mut self,
        number: u64,
        work: &Work<'_>,
    ) -> Result<Vec<Column>, Failure> {
        let Task::Rows(params, _) = work.task else {
            return Err(error::new(ErrorKind::Other, "a cursor is opened for rows").into());
        };
        self.schema_changed |= work.what.changes_schema;
        let mut prepared = self.describe(work.sql).await?;
        if !prepared.described.may_be_cursor() {
            let message = "a cursor reads by SELECT, VALUES, TABLE or WITH: run this statement by `query`";
            return Err(error::new(ErrorKind::Statement, message).into());
        }
        let (runnable, arguments) = self.bind(work.sql, &mut prepared, params, true).await?;
        let inner = runnable.sql(work.sql);
        // What stands before the statement may be semicolons.
        let declaration = format!(
            "DECLARE innkeeper_cursor_{number} BINARY NO SCROLL CURSOR WITHOUT HOLD FOR {}",
            &inner[scan::start(inner)..]
        );
        // Not kept prepared: it has a number that never comes again.
        let declared = sqlx::query_with(AssertSqlSafe(declaration), arguments).persistent(false);
        if let Err(error) = declared.execute(&mut self.inner).await {
            // It was prepared alone before: the place is none of its words.
            let mut failure = self.failure(error, prepared.kept, Some(&runnable)).await;
            failure.error.position = None;
            return Err(failure);
        }
        let columns = prepared.described.columns.clone();
        let cursor = Cursor {
            columns: columns.clone(),
            runnable,
            savepoint: self.savepoint,
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            full: 0,
            limit: 0,
            only_reads: prepared.described.locks_nothing(),
            chunk: 0,
            row_bytes: 0,
            ended: false,
        };
        self.cursors.insert(number, cursor);
        Ok(columns)
    }

    /// At most `limit` further rows, fewer where they take more than a quarter of the bytes
    /// that a result may have, and none only at the end.
    pub(in crate::interfaces::db) async fn fetch(
        &mut self,
        number: u64,
        limit: u32,
        bounds: Bounds,
    ) -> Result<Vec<Vec<Value>>, Failure> {
        let Some(mut cursor) = self.cursors.remove(&number) else {
            return Err(error::new(ErrorKind::Closed, "the cursor has ended").into());
        };
        let fetched = self.fetch_from(&mut cursor, number, limit.into(), bounds).await;
        if fetched.is_ok() {
            self.cursors.insert(number, cursor);
        }
        fetched
    }

    /// Reads the next chunk of a cursor that is read from end to end, while the guest works on
    /// the last one: it then finds the rows ready, and all three work at the same time, as with
    /// a stream of rows that nobody cuts into chunks.
    pub(in crate::interfaces::db) async fn read_ahead(
        &mut self,
        number: u64,
        bounds: Bounds,
    ) -> Result<(), Failure> {
        let Some(mut cursor) = self.cursors.remove(&number) else { return Ok(()) };
        if cursor.may_read_ahead() {
            let chunk = cursor.next_chunk(cursor.limit, bounds);
            let read = self.read_chunk(&cursor, number, chunk, bounds).await?;
            cursor.keep(read, chunk);
        }
        self.cursors.insert(number, cursor);
        Ok(())
    }

    async fn fetch_from(
        &mut self,
        cursor: &mut Cursor,
        number: u64,
        limit: u64,
        bounds: Bounds,
    ) -> Result<Vec<Vec<Value>>, Failure> {
        let most = bounds.bytes / 4;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        loop {
            let is_full = cursor.take(&mut rows, &mut bytes, limit, most);
            if is_full || cursor.ended {
                (cursor.full, cursor.limit) = (cursor.full + 1, limit);
                return Ok(rows);
            }
            let chunk = cursor.next_chunk(limit - rows.len() as u64, bounds);
            let read = self.read_chunk(cursor, number, chunk, bounds).await?;
            cursor.keep(read, chunk);
        }
    }

    async fn read_chunk(
        &mut self,
        cursor: &Cursor,
        number: u64,
        chunk: u64,
        bounds: Bounds,
    ) -> Result<Vec<Vec<Value>>, Failure> {
        let sql = format!("FETCH FORWARD {chunk} FROM innkeeper_cursor_{number}");
        let stream = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_many(&mut self.inner);
        let bounds = Bounds { rows: u64::MAX, ..bounds };
        let mut first = true;
        let decode = |row: &_| {
            let checks = std::mem::replace(&mut first, false);
            row_of(&cursor.runnable, &cursor.columns, row, checks)
        };
        let read = rows::gather(stream, bounds, decode).await;
        read.map_err(|cut| {
            let mut failure = Failure::from(cut);
            // invalid_cursor_name: a block of the plugin has closed it.
            if failure.error.code.as_deref() == Some("34000") {
                failure.error.kind = ErrorKind::Closed;
            }
            failure.error.position = None;
            failure
        })
    }

    /// Closes a cursor.
    pub(in crate::interfaces::db) async fn close_cursor(&mut self, number: u64) -> Result<(), Failure> {
        if self.cursors.remove(&number).is_none() {
            return Ok(());
        }
        self.simple(format!("CLOSE innkeeper_cursor_{number}")).await
    }
}

impl Cursor {
    /// Keeps what a chunk of so many rows has brought.
    fn keep(&mut self, rows: Vec<Vec<Value>>, chunk: u64) {
        let size: u64 = rows.iter().map(|row| rows::row_size(row)).sum();
        self.ended = (rows.len() as u64) < chunk;
        self.chunk = chunk;
        self.row_bytes = size / (rows.len() as u64).max(1);
        self.ahead_bytes += size;
        if self.ahead.is_empty() {
            self.ahead = rows.into();
        } else {
            self.ahead.extend(rows);
        }
    }

    /// Moves rows into an answer until it has as many as are asked for, or as many bytes as it
    /// may have. True where it is full.
    fn take(&mut self, rows: &mut Vec<Vec<Value>>, bytes: &mut u64, limit: u64, most: u64) -> bool {
        if rows.is_empty() && self.ahead.len() as u64 <= limit && self.ahead_bytes <= most {
            // All of them at once.
            *rows = std::mem::take(&mut self.ahead).into();
            *bytes = std::mem::take(&mut self.ahead_bytes);
        }
        while (rows.len() as u64) < limit
            && let Some(row) = self.ahead.pop_front()
        {
            let size = rows::row_size(&row);
            if !rows.is_empty() && *bytes + size > most {
                self.ahead.push_front(row);
                return true;
            }
            self.ahead_bytes -= size;
            *bytes += size;
            rows.push(row);
        }
        rows.len() as u64 >= limit || *bytes >= most
    }

    /// How many rows to read at once: no more than are wanted, and than probably fit, with much
    /// to spare for rows that are larger than those before. What the server has begun to send
    /// cannot be sent back.
    fn next_chunk(&self, wanted: u64, bounds: Bounds) -> u64 {
        let likely = (bounds.bytes / SPARE).checked_div(self.row_bytes).unwrap_or(u64::MAX);
        let careful = (self.chunk * GROWTH).max(FIRST_CHUNK);
        wanted.min(likely).min(careful).max(1)
    }

    /// Not before the guest has shown that it reads on, and never where that would lock rows.
    fn may_read_ahead(&self) -> bool {
        self.full >= READS_ON && self.only_reads && !self.ended && self.ahead.is_empty()
    }
}
