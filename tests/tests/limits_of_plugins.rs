//! What a plugin may use of its host: each limit, tried by a plugin that does not keep to it. The
//! host says which limit it was, and where; it stays up, and what runs beside it goes on.
//!
//! The calls here are made by the real runtime; `hosts` makes some of them in the real binary.

#[path = "limits_of_plugins/hosts.rs"]
mod hosts;
#[path = "limits_of_plugins/stage.rs"]
mod stage;

use innkeeper::execution::{FailureKind, Outcome};
use innkeeper::limits::Limits;
use innkeeper::runtime::{Runtime, Stop};
use innkeeper_tests::database::{Engine, TestDatabase};
use innkeeper_tests::on_both_engines;

use stage::{App, Exhaust, LONG, SHORT, load};

const MIB: u64 = 1 << 20;

/// A statement that runs for longer than any test.
fn endless(engine: Engine) -> &'static str {
    match engine {
        Engine::Postgres => "select pg_sleep(600)",
        Engine::Sqlite => {
            "with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n"
        }
    }
}

#[tokio::test]
async fn a_loop_is_stopped_in_its_own_code_and_its_processor_time_is_on_record() {
    let report = Exhaust { timeout: SHORT, ..Exhaust::new("turns", u64::MAX) }.call().await;
    report.assert_failed(FailureKind::Timeout, "after its time-out of 1s: it was computing (");
    assert!(report.usage.cpu_us > 0 && report.usage.cpu_us <= report.usage.wall_us, "{:?}", report.usage);
    assert!(report.usage.wall_us >= 1_000_000, "{:?}", report.usage);
}

#[tokio::test]
async fn a_sleep_is_stopped_while_it_waits() {
    let report = Exhaust { timeout: SHORT, ..Exhaust::new("sleep", 600_000) }.call().await;
    report.assert_failed(FailureKind::Timeout, "it was waiting (asleep, or for input or output)");
}

on_both_engines! {
    async fn a_query_is_stopped_while_it_runs(engine: Engine) {
        let app = App::new(TestDatabase::empty(engine).await);
        let exhaust = Exhaust { timeout: SHORT, sql: endless(engine), ..Exhaust::new("queries", 1) };
        let report = exhaust.call_with(app.session(SHORT)).await;
        report.assert_failed(FailureKind::Timeout, "it was in a query for ");
        report.assert_failed(FailureKind::Timeout, " of 1.00 s");
        assert_eq!((report.usage.db_calls, report.usage.db_rows_read), (1, 0));
    }

    async fn who_waits_for_a_connection_is_told_of_it(engine: Engine) {
        let app = App::new(TestDatabase::empty(engine).await);
        let holder = app.session(LONG);
        let options = innkeeper_tests::plugins::options(true);
        holder.begin(options).await.expect("there is one connection");
        let exhaust = Exhaust { timeout: SHORT, sql: "select 1", ..Exhaust::new("queries", 1) };
        let report = exhaust.call_with(app.session(SHORT)).await;
        report.assert_failed(FailureKind::Timeout, "it was waiting for a connection to database `app` for ");
        holder.end().await;
    }

    async fn a_stopped_handler_leaves_in_its_log_where_it_was(engine: Engine) {
        let app = App::new(TestDatabase::empty(engine).await);
        let session = app.session(LONG);
        // From here on a connection is there.
        session.query("select 1".to_owned(), Vec::new()).await.expect("the database is there");
        let stop = Stop::new();
        let exhaust = Exhaust { sql: endless(engine), stop: stop.clone(), ..Exhaust::new("queries", 1) };
        let calling = exhaust.call_with(session.clone());
        let stopping = async {
            while session.activity().look().now.is_none() {
                tokio::task::yield_now().await;
            }
            stop.cancel();
        };
        let (report, ()) = tokio::join!(calling, stopping);
        assert_eq!(report.outcome, Outcome::Released);
        let messages = report.records.messages();
        assert!(messages[0].starts_with("the host stopped the handler: it was in a query for "), "{messages:?}");
    }

    async fn an_execution_records_what_it_had_of_its_database(engine: Engine) {
        let app = App::new(TestDatabase::empty(engine).await);
        let sql = "select 1 union all select 2";
        let exhaust = Exhaust { sql, ..Exhaust::new("queries", 5) };
        let report = exhaust.call_with(app.session(LONG)).await;
        report.assert_succeeded();
        let usage = report.usage;
        assert_eq!((usage.db_calls, usage.db_transactions), (5, 5));
        assert_eq!((usage.db_rows_read, usage.db_rows_changed), (10, 0));
        // The text, and rows of one number each, as they lie in the guest's memory.
        let sent = sql.len() as u64 + 8;
        assert_eq!(usage.db_bytes, 5 * (sent + 2 * 24));
        assert!(usage.memory_peak_bytes > 0 && usage.cpu_us > 0, "{usage:?}");
        assert_eq!((usage.fuel, usage.log_lines), (None, 0));
    }
}

#[tokio::test]
async fn memory_is_refused_at_the_limit_and_the_peak_is_on_record() {
    let report = Exhaust::new("memory", 1_000).call().await;
    report.assert_failed(FailureKind::Memory, "out of memory: ");
    report.assert_failed(FailureKind::Memory, " of 32 MiB were in use when it asked for ");
    let peak = report.usage.memory_peak_bytes;
    assert!((24 * MIB..=32 * MIB).contains(&peak), "{peak}");
    Exhaust::new("memory", 8).call().await.assert_succeeded();
}

#[tokio::test]
async fn nothing_that_a_handler_leaves_in_its_memory_is_there_for_the_next() {
    // More often than there are slots, each of which keeps its pages for the same component.
    for _ in 0..40 {
        let report = Exhaust::new("remember", 7).call().await;
        assert!(
            matches!(&report.outcome, Outcome::Succeeded(before) if *before == 0),
            "{:?}",
            report.outcome
        );
    }
}

#[tokio::test]
async fn a_panic_of_another_cause_is_not_blamed_on_memory() {
    let report = Exhaust::new("memory-then-panic", 1_000).call().await;
    report.assert_failed(FailureKind::Trap, "no customer 17 (refused: true)");
    report.assert_failed(FailureKind::Trap, "\nnote: memory was refused before that: out of memory: ");
}

#[tokio::test]
async fn a_component_that_begins_with_more_memory_than_it_may_have_is_told_so_at_load_and_in_a_call() {
    let little = Limits { memory: MIB, ..Limits::default() };
    let runtime = Runtime::new(1, 64 * MIB).expect("there is room");
    let error = load(&runtime, little).await.err().expect("it needs more");
    assert!(error.contains("memories have") && error.contains("plugin allows 1.0 MiB; raise it"), "{error}");
    let report = Exhaust { limits: little, ..Exhaust::new("turns", 1) }.call().await;
    report.assert_failed(FailureKind::Memory, "out of memory: it needs ");
}

#[tokio::test]
async fn fuel_ends_a_handler_that_computes_too_much_and_what_was_used_is_on_record() {
    let fuel = 10_000_000;
    let limits = Limits { fuel: Some(fuel), ..Limits::default() };
    let runtime = Runtime::new(2, 64 * MIB).expect("there is room");
    let metered = load(&runtime, limits).await.expect("it can be loaded");
    let plain = load(&runtime, Limits::default()).await.expect("both kinds can be");
    let call = async |component, turns| {
        let exhaust = Exhaust { limits, ..Exhaust::new("turns", turns) };
        exhaust.call_on(&runtime, component, innkeeper::interfaces::db::Session::refused()).await
    };
    let report = call(&metered, u64::MAX).await;
    report.assert_failed(FailureKind::Fuel, "out of fuel: 10,000,000 of 10,000,000 units used");
    assert_eq!(report.usage.fuel, Some(fuel));
    let few = call(&metered, 1_000).await;
    let more = call(&metered, 100_000).await;
    few.assert_succeeded();
    more.assert_succeeded();
    assert!(few.usage.fuel < more.usage.fuel, "{:?}, {:?}", few.usage.fuel, more.usage.fuel);
    assert_eq!(call(&metered, 1_000).await.usage.fuel, few.usage.fuel, "the same work is the same fuel");
    let uncounted = call(&plain, 1_000).await;
    uncounted.assert_succeeded();
    assert_eq!(uncounted.usage.fuel, None);
}

#[tokio::test]
async fn a_flood_of_lines_is_held_to_the_limit_and_costs_no_records_beyond_it() {
    let limits = Limits { log_lines: 100, ..Limits::default() };
    for what in ["lines", "printed"] {
        let report = Exhaust { limits, ..Exhaust::new(what, 200_000) }.call().await;
        report.assert_succeeded();
        let messages = report.records.messages();
        assert_eq!((messages[0].as_str(), messages[99].as_str()), ("line 0", "line 99"), "{what}");
        let last = messages.last().expect("there are lines");
        assert!(
            last.starts_with("… 199,900 more lines (2.0 MiB) were not kept: `limits.log_lines`"),
            "{last}"
        );
        // Where it is cut may be said at once as well.
        assert!(messages.len() <= 102 && report.records.writes() <= 102, "{what}: {}", messages.len());
        assert_eq!((report.usage.log_lines, report.usage.log_bytes), (200_000, 2_088_890), "{what}");
    }
    let limits = Limits { log_bytes: 1024, ..Limits::default() };
    let report = Exhaust { limits, ..Exhaust::new("printed", 1_000) }.call().await;
    let last = report.records.messages().pop().expect("there are lines");
    assert!(last.ends_with("were not kept: `limits.log_bytes` of the plugin is 1.0 KiB"), "{last}");
}

#[tokio::test]
async fn a_panic_after_a_flood_of_lines_is_explained_all_the_same() {
    let limits = Limits { log_lines: 10, ..Limits::default() };
    let report = Exhaust { limits, ..Exhaust::new("lines-then-panic", 1_000) }.call().await;
    report.assert_failed(FailureKind::Trap, "no customer 17");
    report.assert_failed(FailureKind::Trap, "\n    at ");
    report.assert_failed(FailureKind::Trap, "innkeeper:plugin/handlers@0.1.0#run");
}

#[tokio::test]
async fn a_panic_is_explained_although_a_refusal_was_logged_after_it() {
    let report = Exhaust::new("stray-then-panic", 0).call().await;
    report.assert_failed(FailureKind::Trap, "no customer 17");
    let last = report.records.messages().pop().expect("there are lines");
    assert!(last.starts_with("refused: `/etc/passwd`"), "{last}");
}

#[tokio::test]
async fn what_is_being_logged_when_a_handler_is_stopped_is_logged_to_its_end_and_then_what_was_refused() {
    let call = Exhaust { stop_in_log: true, ..Exhaust::new("stray-sleep", 3_600_000) };
    let report = call.call().await;
    assert!(matches!(report.outcome, Outcome::Released), "{:?}", report.outcome);
    let messages = report.records.messages();
    assert_eq!(messages[0], "about to sleep");
    assert!(messages[1].starts_with("refused: `/etc/passwd`"), "{messages:?}");
}

#[tokio::test]
async fn whoever_writes_without_asking_is_stopped_before_the_host_grows() {
    let limits = Limits { log_lines: 1_000_000, log_bytes: 1 << 30, ..Limits::default() };
    let report = Exhaust { limits, ..Exhaust::new("written", 1 << 30) }.call().await;
    report.assert_failed(FailureKind::Trap, "more was written than `check-write` allowed");
    let report = Exhaust::new("zeroes", u64::MAX).call().await;
    report.assert_failed(FailureKind::Trap, "more zeroes than `check_write` allows");
}

#[tokio::test]
async fn progress_is_recorded_now_and_then_and_at_the_end() {
    let report = Exhaust::new("progress", 200_000).call().await;
    report.assert_succeeded();
    let progress = report.records.progress();
    assert_eq!((progress.first(), progress.last()), (Some(&0), Some(&199_999)));
    assert!(progress.len() < 2_000, "{}", progress.len());
}

#[tokio::test]
async fn calls_too_deep_within_each_other_are_a_trap_that_says_so() {
    let report = Exhaust::new("recursion", u64::MAX).call().await;
    report.assert_failed(FailureKind::Trap, "stack overflow: ");
    report.assert_failed(FailureKind::Trap, "calls within each other)");
    let report = Exhaust::new("wide-recursion", u64::MAX).call().await;
    report.assert_failed(FailureKind::Trap, "deep in a recursion: its stack may have overflowed");
}

#[tokio::test]
async fn a_result_beyond_the_limit_is_a_failure_of_its_own_kind() {
    let limits = Limits { result_bytes: 2048, ..Limits::default() };
    Exhaust { limits, ..Exhaust::new("result", 2048) }.call().await.assert_succeeded();
    let report = Exhaust { limits, ..Exhaust::new("result", 2049) }.call().await;
    report
        .assert_failed(FailureKind::Result, "the handler's result has 2049 bytes, and at most 2048 are kept");
}

#[tokio::test]
async fn what_would_make_the_host_grow_is_refused() {
    for (what, amount, said) in [
        ("random", u64::MAX, "exceeds limit"),
        ("random", 17 * MIB, "exceeds limit"),
        ("timers", 100_000, "more than 10,000 things of the host open at once"),
        ("fields", 1_000, "passed more to the host in one call than twice its `limits.memory`"),
    ] {
        let report = Exhaust::new(what, amount).call().await;
        report.assert_failed(FailureKind::Trap, said);
    }
    Exhaust::new("random", MIB).call().await.assert_succeeded();
    Exhaust::new("fields", 10).call().await.assert_succeeded();
}

#[tokio::test]
async fn the_end_of_the_program_is_told_with_its_exit_code() {
    for code in [0, 1] {
        let report = Exhaust::new("exit", code).call().await;
        report.assert_failed(FailureKind::Trap, "ended its program with exit code");
    }
}
