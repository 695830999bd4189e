//! Write job handlers for Innkeeper in Rust.
//!
//! A plugin is a library crate with one or more functions marked [`#[handler]`](handler). It
//! is compiled to a WebAssembly component, which the host runs on schedule.
//!
//! ```toml
//! # Cargo.toml
//! [lib]
//! crate-type = ["cdylib"]
//!
//! [dependencies]
//! innkeeper-sdk = "0.1"
//! schemars = "1"
//! serde = { version = "1", features = ["derive"] }
//! ```
//!
//! ```
//! // src/lib.rs
//! use innkeeper_sdk::{Context, Failure, db, handler, log, params};
//! use schemars::JsonSchema;
//! use serde::{Deserialize, Serialize};
//! use std::time::Duration;
//!
//! #[derive(Deserialize, JsonSchema)]
//! struct Args {
//!     retention_days: u32,
//! }
//!
//! #[derive(Serialize)]
//! struct Report {
//!     deleted: u64,
//! }
//!
//! /// Deletes sessions that expired more than `retention_days` ago.
//! #[handler]
//! fn cleanup_expired_sessions(ctx: &Context, args: Args) -> Result<Report, Failure> {
//!     let cutoff = ctx.started_at() - Duration::from_hours(24) * args.retention_days;
//!     let deleted = db::execute("DELETE FROM sessions WHERE expires_at < $1", params![cutoff])?;
//!     log::info!(deleted = deleted; "sessions cleaned up");
//!     Ok(Report { deleted })
//! }
//!
//! innkeeper_sdk::plugin!(cleanup_expired_sessions);
//! ```
//!
//! ```sh
//! rustup target add wasm32-wasip2
//! cargo build --release --target wasm32-wasip2
//! ```
//!
//! The operator's configuration then names the `.wasm` file as a plugin's `component`, and
//! `cleanup-expired-sessions` as a job's `handler`.
//!
//! # What to know
//!
//! - Every execution runs in an instance of its own: nothing in memory survives it, and nothing
//!   is shared with another one.
//! - An execution may run more than once (a host can die after the work and before the record
//!   of it). Write handlers that can be repeated.
//! - A panic ends the execution as a failure that the job's policy may try again; its message
//!   is in the execution's log. Transactions that were open are rolled back.
//! - [`Failure`] says how errors turn into failures, and [`db`] how transactions work.
//!   `docs/db.md` in Innkeeper's repository is the whole contract of the database.
//! - [`#[handler(transaction)]`](handler) makes one transaction of a whole call.

#[doc(hidden)]
pub mod bindings;

pub mod config;
mod context;
pub mod db;
mod failure;
mod handler;
pub mod jobs;
pub mod log;
mod time;

pub use context::{Context, Trigger};
pub use failure::Failure;
pub use innkeeper_sdk_macros::handler;

/// Exports the handlers of the plugin. Write it once, with every handler's name or path.
///
/// ```
/// mod reports {
///     use innkeeper_sdk::{Context, Failure, handler};
///
///     /// Sends the weekly report.
///     #[handler]
///     pub fn send_weekly_report(_ctx: &Context) -> Result<(), Failure> {
///         Ok(())
///     }
/// }
///
/// innkeeper_sdk::plugin!(reports::send_weekly_report);
/// # fn main() {}
/// ```
///
/// Two handlers of the same name do not compile:
///
/// ```compile_fail,E0080
/// mod daily {
///     use innkeeper_sdk::{Context, Failure, handler};
///
///     #[handler]
///     pub fn report(_ctx: &Context) -> Result<(), Failure> {
///         Ok(())
///     }
/// }
///
/// innkeeper_sdk::plugin!(daily::report, daily::report);
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! plugin {
    ($($handler:path),+ $(,)?) => {
        const _: () = {
            const HANDLERS: &[$crate::__private::Entry] =
                &[$(<$handler as $crate::__private::Handler>::ENTRY),+];
            const _: () = $crate::__private::assert_unique(HANDLERS);

            enum Plugin {}

            impl $crate::__private::Guest for Plugin {
                fn describe() -> ::std::vec::Vec<$crate::__private::HandlerDescription> {
                    $crate::__private::describe(HANDLERS)
                }

                fn run(
                    handler: ::std::string::String,
                    args: ::std::string::String,
                    execution: $crate::__private::Execution,
                ) -> ::core::result::Result<::std::string::String, $crate::__private::WitFailure> {
                    $crate::__private::run(HANDLERS, &handler, &args, execution)
                }
            }

            // The names of the exports mean nothing to a linker of native code.
            #[cfg(target_arch = "wasm32")]
            $crate::__private::bindings::export!(Plugin with_types_in $crate::__private::bindings);
        };
    };
}

/// Compiles the examples of the guide.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/db.md")]
struct Guide;

/// For the macros of this crate, and not covered by its version.
#[doc(hidden)]
#[allow(missing_docs)]
pub mod __private {
    pub use crate::bindings;
    pub use crate::bindings::exports::innkeeper::plugin::handlers::{Guest, Handler as HandlerDescription};
    pub use crate::bindings::innkeeper::plugin::types::{Execution, Failure as WitFailure};
    pub use crate::handler::{
        Entry, Handler, assert_unique, call, call_in_transaction, call_with_args,
        call_with_args_in_transaction, describe, run, schema_of,
    };
}
