//! What one execution has had of its databases, for its record.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Value;
use super::rows::row_size;
use super::serve::OwnedTask;
use super::work::Output;
use crate::limits::Usage;

/// Counted as it happens, without a lock.
#[derive(Debug, Default)]
pub(super) struct Counts {
    calls: AtomicU64,
    transactions: AtomicU64,
    rows_read: AtomicU64,
    rows_changed: AtomicU64,
    bytes: AtomicU64,
}

impl Counts {
    /// A call has reached the host, whatever becomes of it.
    pub(super) fn call(&self) {
        add(&self.calls, 1);
    }

    /// A transaction was opened.
    pub(super) fn transaction(&self) {
        add(&self.transactions, 1);
    }

    /// What came from the guest.
    pub(super) fn asked(&self, sql: &str, params: u64) {
        add(&self.bytes, sql.len() as u64 + params);
    }

    /// What a statement has brought the guest.
    pub(super) fn brought(&self, output: &Output) {
        match output {
            Output::Rows(rows) => self.rows(&rows.rows),
            Output::Changed(changed) => add(&self.rows_changed, *changed),
        }
    }

    /// Rows that the guest is given.
    pub(super) fn rows(&self, rows: &[Vec<Value>]) {
        add(&self.rows_read, rows.len() as u64);
        add(&self.bytes, rows.iter().map(|row| row_size(row)).sum());
    }

    /// Writes down what there was so far.
    pub(super) fn write(&self, usage: &mut Usage) {
        usage.db_calls = self.calls.load(Ordering::Relaxed);
        usage.db_transactions = self.transactions.load(Ordering::Relaxed);
        usage.db_rows_read = self.rows_read.load(Ordering::Relaxed);
        usage.db_rows_changed = self.rows_changed.load(Ordering::Relaxed);
        usage.db_bytes = self.bytes.load(Ordering::Relaxed);
    }
}

/// Bytes of parameters in the guest.
pub(super) fn params_size(task: &OwnedTask) -> u64 {
    match task {
        OwnedTask::Rows(params) | OwnedTask::Changes(params) => row_size(params),
        OwnedTask::Many(lists) => lists.iter().map(|params| row_size(params)).sum(),
    }
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}
