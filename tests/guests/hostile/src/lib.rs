//! A guest for the tests that does what no plugin should.
//!
//! Arguments and results are JSON; every handler's comment says what it takes and returns. In
//! short: [`raid`] says what is forbidden and looks at what is left of it, [`hoard`] opens without
//! an end, [`forge`] uses handles that it never got, [`nest`] wants a second connection while it
//! holds one, [`script`] stays in its transactions until a test lets it go on, and [`exhaust`] uses up
//! what the host has.

mod exhausting;
mod forging;
mod hoarding;
mod nesting;
mod raiding;
mod scripting;

use innkeeper_sdk::__private::bindings::innkeeper::plugin::db as wit;
use innkeeper_sdk::db::{Error, Value};
use serde_json::{Value as Json, json};

use exhausting::exhaust;
use forging::forge;
use hoarding::hoard;
use nesting::nest;
use raiding::raid;
use scripting::script;

innkeeper_sdk::plugin!(exhaust, forge, hoard, nest, raid, script);

/// What became of a call: `"ok"` or the kind of its error.
fn kind<T>(result: &Result<T, wit::Error>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(error) => error.kind.as_str(),
    }
}

/// Options of `begin` for this database, or the default one.
fn options(database: Option<String>, read_only: bool) -> wit::BeginOptions {
    wit::BeginOptions { database, isolation: None, read_only }
}

/// Rows as JSON: what JSON has no value for is the text that Rust has for it.
fn rows(set: &wit::RowSet) -> Json {
    let value = |value: &Value| match value {
        Value::Null => Json::Null,
        Value::Boolean(boolean) => json!(boolean),
        Value::Integer(integer) => json!(integer),
        Value::Text(text) => json!(text),
        other => json!(format!("{other:?}")),
    };
    set.rows.iter().map(|row| row.iter().map(value).collect::<Json>()).collect()
}

/// An error as a test reads it.
fn describe(error: wit::Error) -> String {
    Error::from(error).to_string()
}
