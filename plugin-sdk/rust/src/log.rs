//! Lines in the execution's log.
//!
//! ```no_run
//! use innkeeper_sdk::log;
//!
//! let (deleted, table) = (250, "sessions");
//! log::info!("deleted {deleted} rows");
//! log::warn!(table = table, deleted = deleted; "that took {} s", 12);
//! ```
//!
//! Fields come first, with a semicolon after them; their values are anything that serializes to
//! JSON. What a handler prints to stdout and stderr goes to the same log, line by line.

use crate::bindings::innkeeper::plugin::context as wit;

pub use wit::Level;

#[doc(inline)]
pub use crate::{
    __log_debug as debug, __log_error as error, __log_info as info, __log_trace as trace, __log_warn as warn,
};

/// Adds a line to the execution's log. The macros of this module are easier to write.
pub fn write(level: Level, message: &str, fields: &[(&str, serde_json::Value)]) {
    let fields: Vec<(String, String)> =
        fields.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect();
    wit::log(level, message, &fields);
}

/// The value of a field. What cannot be written as JSON is logged as the reason why.
#[doc(hidden)]
pub fn field(value: &(impl serde::Serialize + ?Sized)) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_else(|error| error.to_string().into())
}

#[doc(hidden)]
#[macro_export]
macro_rules! __log_at {
    ($level:ident, $($name:ident = $value:expr),+ $(,)? ; $($message:tt)+) => {
        $crate::log::write(
            $crate::log::Level::$level,
            &::std::format!($($message)+),
            &[$((::core::stringify!($name), $crate::log::field(&$value))),+],
        )
    };
    ($level:ident, $($message:tt)+) => {
        $crate::log::write($crate::log::Level::$level, &::std::format!($($message)+), &[])
    };
}

/// Logs a line of level `trace`; see [`log`](crate::log).
#[doc(hidden)]
#[macro_export]
macro_rules! __log_trace { ($($line:tt)+) => { $crate::__log_at!(Trace, $($line)+) }; }

/// Logs a line of level `debug`; see [`log`](crate::log).
#[doc(hidden)]
#[macro_export]
macro_rules! __log_debug { ($($line:tt)+) => { $crate::__log_at!(Debug, $($line)+) }; }

/// Logs a line of level `info`; see [`log`](crate::log).
#[doc(hidden)]
#[macro_export]
macro_rules! __log_info { ($($line:tt)+) => { $crate::__log_at!(Info, $($line)+) }; }

/// Logs a line of level `warn`; see [`log`](crate::log).
#[doc(hidden)]
#[macro_export]
macro_rules! __log_warn { ($($line:tt)+) => { $crate::__log_at!(Warn, $($line)+) }; }

/// Logs a line of level `error`; see [`log`](crate::log).
#[doc(hidden)]
#[macro_export]
macro_rules! __log_error { ($($line:tt)+) => { $crate::__log_at!(Error, $($line)+) }; }
