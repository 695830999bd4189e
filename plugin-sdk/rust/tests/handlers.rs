//! What the macros make of functions, as the host sees it.

use innkeeper_sdk::__private::{self, Entry, Execution, Handler, WitFailure};
use innkeeper_sdk::db::Transaction;
use innkeeper_sdk::{Context, Failure, Trigger, db, handler, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::{Duration, SystemTime};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Args {
    /// How many.
    #[schemars(range(min = 1, max = 9))]
    count: u32,
}

#[derive(Serialize)]
struct Doubled {
    count: u32,
}

/// Doubles
/// a number.
///
/// More about it.
#[handler]
fn double_it(_ctx: &Context, args: Args) -> Result<Doubled, Failure> {
    Ok(Doubled { count: args.count * 2 })
}

mod elsewhere {
    use super::{Context, Failure, handler};

    #[handler]
    pub fn take_nothing(ctx: &Context) -> Result<Option<String>, Failure> {
        ctx.checkpoint()
    }

    /// Fails.
    #[handler]
    pub fn read_a_number(_ctx: &Context) -> Result<u8, std::num::ParseIntError> {
        "x".parse()
    }
}

use elsewhere::take_nothing;

/// Changes much at once.
#[handler(transaction(database = "billing", isolation = "serializable"))]
fn close_month(_ctx: &Context, tx: &Transaction, args: Args) -> Result<u64, Failure> {
    Ok(tx.execute("UPDATE invoices SET closed = true WHERE month = $1", params![args.count])?)
}

/// Looks at much at once.
#[handler(transaction(read_only))]
fn audit(_ctx: &Context, tx: &db::Transaction) -> Result<u64, db::Error> {
    tx.query("SELECT count(*) FROM invoices", params![])?.scalar()
}

innkeeper_sdk::plugin!(double_it, take_nothing, elsewhere::read_a_number, close_month, audit);

const HANDLERS: &[Entry] = &[
    <double_it as Handler>::ENTRY,
    <take_nothing as Handler>::ENTRY,
    <elsewhere::read_a_number as Handler>::ENTRY,
    <close_month as Handler>::ENTRY,
    <audit as Handler>::ENTRY,
];

fn execution() -> Execution {
    Execution {
        id: "0190163d-8694-739b-aea5-966c26f8ad91".into(),
        job: "double".into(),
        attempt: 2,
        max_attempts: 3,
        triggered_by: Trigger::Manual,
        scheduled_at: 1_000_000,
        started_at: 2_000_000,
        deadline: None,
        checkpoint: Some("\"half\"".into()),
    }
}

fn run(handler: &str, args: &str) -> Result<String, WitFailure> {
    __private::run(HANDLERS, handler, args, execution())
}

fn refused(handler: &str, args: &str) -> String {
    match run(handler, args).unwrap_err() {
        WitFailure::Permanent(message) => message,
        other => panic!("not permanent: {other:?}"),
    }
}

#[test]
fn a_handler_is_described_by_its_name_its_comment_and_the_type_of_its_arguments() {
    let described = __private::describe(HANDLERS);
    let names: Vec<&str> = described.iter().map(|handler| handler.name.as_str()).collect();
    assert_eq!(names, ["double-it", "take-nothing", "read-a-number", "close-month", "audit"]);
    assert_eq!(described[0].summary, "Doubles a number.");
    assert_eq!(described[1].summary, "");
    assert_eq!(described[1].args_schema, None);

    let schema: serde_json::Value = serde_json::from_str(described[0].args_schema.as_ref().unwrap()).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["type"], "object");
    assert_eq!(schema["required"], json!(["count"]));
    assert_eq!(schema["additionalProperties"], json!(false));
    assert_eq!(schema["properties"]["count"]["minimum"], 1);
    assert_eq!(schema["properties"]["count"]["maximum"], 9);
    assert_eq!(schema["properties"]["count"]["description"], "How many.");
}

#[test]
fn a_handler_runs_with_its_arguments_and_its_result_is_json() {
    assert_eq!(run("double-it", r#"{"count": 4}"#).unwrap(), r#"{"count":8}"#);
}

#[test]
fn a_handler_without_arguments_ignores_what_it_is_given() {
    assert_eq!(run("take-nothing", r#"{"anything": [1]}"#).unwrap(), "\"half\"");
}

#[test]
fn a_handler_with_a_transaction_is_described_by_the_arguments_after_it() {
    let described = __private::describe(HANDLERS);
    assert_eq!(described[3].args_schema, described[0].args_schema);
    assert_eq!(described[4].args_schema, None);
    let _: fn(&Context, &Transaction, Args) -> Result<u64, Failure> = close_month;
}

#[test]
fn a_transaction_is_not_begun_for_arguments_that_do_not_fit() {
    // There is no host here to begin one, so that trying would be a panic.
    assert!(refused("close-month", "{}").contains("missing field `count`"));
}

#[test]
fn a_function_with_the_attribute_is_still_an_ordinary_function() {
    let _: fn(&Context, Args) -> Result<Doubled, Failure> = double_it;
}

#[test]
fn arguments_that_do_not_fit_are_a_permanent_failure_that_names_the_problem() {
    let message = refused("double-it", r#"{"count": "four"}"#);
    assert!(message.contains("invalid type: string \"four\", expected u32"), "{message}");
    assert!(refused("double-it", "{}").contains("missing field `count`"));
    assert!(refused("double-it", "{").contains("the arguments do not fit the handler"));
}

#[test]
fn a_handler_that_is_not_there_is_a_permanent_failure_that_names_those_that_are() {
    assert_eq!(
        refused("triple-it", "{}"),
        "this plugin has no handler \"triple-it\"; its handlers are: double-it, take-nothing, \
         read-a-number, close-month, audit"
    );
}

#[test]
fn an_error_of_another_type_becomes_a_failure() {
    let failure = run("read-a-number", "null").unwrap_err();
    assert_eq!(failure, WitFailure::Retryable("invalid digit found in string".into()));
}

#[test]
fn the_context_has_the_execution() {
    fn check(ctx: &Context) -> Result<(), Failure> {
        assert_eq!(ctx.id(), "0190163d-8694-739b-aea5-966c26f8ad91");
        assert_eq!((ctx.job(), ctx.attempt(), ctx.max_attempts()), ("double", 2, 3));
        assert_eq!(ctx.triggered_by().as_str(), "manual");
        assert_eq!(ctx.scheduled_at(), SystemTime::UNIX_EPOCH + Duration::from_secs(1));
        assert_eq!(ctx.started_at(), SystemTime::UNIX_EPOCH + Duration::from_secs(2));
        assert_eq!(ctx.deadline(), None);
        let failure = ctx.checkpoint::<u8>().unwrap_err();
        assert!(failure.message().contains("the checkpoint of an earlier attempt does not fit"));
        Ok(())
    }
    const ENTRY: Entry = Entry {
        name: "check",
        summary: "",
        args_schema: || None,
        call: |context, _| __private::call(check, context),
    };
    assert_eq!(__private::run(&[ENTRY], "check", "{}", execution()).unwrap(), "null");
}
