//! What the host says of itself: its own log, on standard error.
//!
//! Events have constant messages, and their data in fields: `job`, `execution`, `attempt`,
//! `plugin`, `host`, `kind`, `error`. What handlers log is kept in the store and does not
//! appear here.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// The variable that chooses what is logged, in the form of `tracing-subscriber`'s
/// directives; `info` where it is not set.
pub const LOG_VARIABLE: &str = "INNKEEPER_LOG";

/// Starts logging. Call it once.
pub fn start(json: bool) {
    // sqlx logs each statement, and a plugin's data does not belong into the host's log.
    let filter = EnvFilter::try_from_env(LOG_VARIABLE)
        .unwrap_or_else(|_| EnvFilter::new("info,sqlx=off,wasmtime=warn,cranelift=warn"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // A second start, in tests of this crate, changes nothing.
    let _ = if json { builder.json().try_init() } else { builder.try_init() };
}
