//! What one execution may use, and what one has used.
//!
//! Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bounds;

/// `[plugins.NAME.limits]`: what one attempt may use of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of linear memory and tables of one execution in all.
    pub memory: u64,
    /// The time-out of jobs that name none.
    pub timeout: Duration,
    /// Units of fuel, about one for each instruction of WebAssembly; none: they are not counted.
    pub fuel: Option<u64>,
    /// Executions of the plugin at once on this host; none: as many as the host has slots.
    pub concurrency: Option<u32>,
    /// Lines that are kept of what it logs and prints.
    pub log_lines: u64,
    /// Bytes that are kept of them, messages and fields.
    pub log_bytes: u64,
    /// Bytes of its result. Never more than [`bounds::DOCUMENT`].
    pub result_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            timeout: Duration::from_secs(300),
            fuel: None,
            concurrency: None,
            log_lines: 10_000,
            log_bytes: 8 << 20,
            result_bytes: bounds::DOCUMENT as u64,
        }
    }
}

/// What one attempt has used, as far as its host could measure it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// From the START's return to the end of the call, in microseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub wall_us: u64,
    /// Processor time of the guest and of what the host did for it on the same thread, in
    /// microseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub cpu_us: u64,
    /// The most bytes of linear memory and tables that it had at one time.
    #[serde(skip_serializing_if = "is_zero")]
    pub memory_peak_bytes: u64,
    /// Units of fuel, where its plugin has a limit of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
    /// Calls of `db` that reached the host.
    #[serde(skip_serializing_if = "is_zero")]
    pub db_calls: u64,
    /// Transactions that were opened for it.
    #[serde(skip_serializing_if = "is_zero")]
    pub db_transactions: u64,
    /// Rows that it was given by `db`.
    #[serde(skip_serializing_if = "is_zero")]
    pub db_rows_read: u64,
    /// Rows that its statements changed, as the database counts them.
    #[serde(skip_serializing_if = "is_zero")]
    pub db_rows_changed: u64,
    /// Bytes of statements, parameters and rows, as they lie in the guest's memory.
    #[serde(skip_serializing_if = "is_zero")]
    pub db_bytes: u64,
    /// Lines that it logged and printed, those that were not kept included.
    #[serde(skip_serializing_if = "is_zero")]
    pub log_lines: u64,
    /// Bytes of those lines.
    #[serde(skip_serializing_if = "is_zero")]
    pub log_bytes: u64,
    /// Requests that it sent.
    #[serde(skip_serializing_if = "is_zero")]
    pub http_requests: u64,
}

/// Each completion is stored with it: a kind of work that was not done takes no room there.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A number with its thousands apart, for people.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_takes_no_room_and_is_read_as_zero() {
        let usage = Usage { wall_us: 1_200, db_calls: 3, ..Usage::default() };
        let text = serde_json::to_string(&usage).unwrap();
        assert_eq!(text, r#"{"wall_us":1200,"db_calls":3}"#);
        assert_eq!(serde_json::from_str::<Usage>(&text).unwrap(), usage);
    }

    #[test]
    fn what_a_newer_host_has_measured_besides_is_passed_over() {
        let usage: Usage = serde_json::from_str(r#"{"cpu_us":7,"joules":3}"#).unwrap();
        assert_eq!(usage, Usage { cpu_us: 7, ..Usage::default() });
    }

    #[test]
    fn thousands_are_set_apart() {
        let numbers = [0, 999, 1_000, 123_456, u64::MAX].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "123,456", "18,446,744,073,709,551,615"]);
    }
}
