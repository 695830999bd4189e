//! What an attempt has used, in one line.

use std::time::Duration;

use crate::cli::sentence::count;
use crate::limits::{Usage, grouped};

/// Such as `wall 1.23s, cpu 0.40s, memory 12.3 MiB at most, db 12 calls in 5 transactions (1,200 rows
/// read, 7 changed, 3.4 MiB)`. What it made no use of is not told.
pub(super) fn used(usage: &Usage) -> String {
    let mut parts =
        vec![format!("wall {}", seconds(usage.wall_us)), format!("cpu {}", seconds(usage.cpu_us))];
    if usage.memory_peak_bytes > 0 {
        parts.push(format!("memory {} at most", bytes(usage.memory_peak_bytes)));
    }
    if let Some(fuel) = usage.fuel {
        parts.push(format!("fuel {}", grouped(fuel)));
    }
    if usage.db_calls > 0 {
        parts.push(format!(
            "db {} in {} ({} read, {} changed, {})",
            number(usage.db_calls, "call"),
            number(usage.db_transactions, "transaction"),
            number(usage.db_rows_read, "row"),
            grouped(usage.db_rows_changed),
            bytes(usage.db_bytes)
        ));
    }
    if usage.log_lines > 0 {
        parts.push(format!("log {} ({})", number(usage.log_lines, "line"), bytes(usage.log_bytes)));
    }
    if usage.http_requests > 0 {
        parts.push(format!("http {}", number(usage.http_requests, "request")));
    }
    parts.join(", ")
}

/// `1 row`, `1,200 rows`.
fn number(number: u64, what: &str) -> String {
    let told = count(number, what);
    told.replacen(&number.to_string(), &grouped(number), 1)
}

/// As exact as anybody compares them.
fn seconds(micros: u64) -> String {
    match micros {
        0..10_000 => format!("{micros}us"),
        10_000..100_000 => format!("{}ms", micros / 1_000),
        100_000..60_000_000 => {
            let hundredths = micros / 10_000;
            format!("{}.{:02}s", hundredths / 100, hundredths % 100)
        }
        _ => humantime::format_duration(Duration::from_secs(micros / 1_000_000)).to_string(),
    }
}

fn bytes(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let Some((shift, unit)) = units.into_iter().find(|(shift, _)| bytes >> shift > 0) else {
        return format!("{bytes} B");
    };
    let whole = bytes >> shift;
    let tenths = ((bytes - (whole << shift)) * 10) >> shift;
    format!("{whole}.{tenths} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_is_told_in_one_line() {
        let usage = Usage {
            wall_us: 1_234_000,
            cpu_us: 400_000,
            memory_peak_bytes: 12 << 20 | 307 << 10,
            fuel: Some(1_000_000),
            db_calls: 12,
            db_transactions: 5,
            db_rows_read: 1_200,
            db_rows_changed: 7,
            db_bytes: 3_600_000,
            log_lines: 1,
            log_bytes: 80,
            http_requests: 3,
        };
        assert_eq!(
            used(&usage),
            "wall 1.23s, cpu 0.40s, memory 12.2 MiB at most, fuel 1,000,000, db 12 calls in 5 transactions \
             (1,200 rows read, 7 changed, 3.4 MiB), log 1 line (80 B), http 3 requests"
        );
    }

    #[test]
    fn what_was_not_used_is_not_told() {
        let usage = Usage { wall_us: 1_900, cpu_us: 65_000, ..Usage::default() };
        assert_eq!(used(&usage), "wall 1900us, cpu 65ms");
    }

    #[test]
    fn numbers_are_as_large_as_they_come() {
        assert_eq!(seconds(3_723_000_000), "1h 2m 3s");
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(number(1, "row"), "1 row");
        assert_eq!(number(0, "row"), "0 rows");
    }
}
