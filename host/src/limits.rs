//! What one execution may use, and what one has used.
//!
//! Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `[plugins.NAME.limits]`: what one attempt may use of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of linear memory and tables of one execution in all.
    pub memory: u64,
    /// The time-out of jobs that name none.
    pub timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: 64 << 20, timeout: Duration::from_secs(300) }
    }
}

/// What one attempt has used, as far as its host could measure it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// From the START's return to the end of the call, in microseconds.
    pub wall_us: u64,
    /// Processor time of the guest and of what the host did for it on the same thread, in
    /// microseconds.
    pub cpu_us: u64,
    /// The most bytes of linear memory and tables that it had at one time.
    pub memory_peak_bytes: u64,
    /// Units of fuel, where its plugin has a limit of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
    /// Calls of `db` that reached the host.
    pub db_calls: u64,
    /// Transactions that were opened for it.
    pub db_transactions: u64,
    /// Rows that it was given by `db`.
    pub db_rows_read: u64,
    /// Rows that its statements changed, as the database counts them.
    pub db_rows_changed: u64,
    /// Bytes of statements, parameters and rows, as they lie in the guest's memory.
    pub db_bytes: u64,
    /// Lines that it logged and printed, those that were not kept included.
    pub log_lines: u64,
    /// Bytes of those lines.
    pub log_bytes: u64,
    /// Requests that it sent.
    pub http_requests: u64,
}
