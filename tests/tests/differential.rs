//! The same random operations on SQLite and on PostgreSQL: step by step the same answers, the
//! same rows in every table, and in both the rules that always hold.
//!
//! `PROPTEST_CASES` sets how many programs, `INNKEEPER_SEED` which: a failure prints the seed and
//! the shortest program that still fails.

#[path = "differential/invariants.rs"]
mod invariants;
#[path = "differential/program.rs"]
mod program;
#[path = "differential/side.rs"]
mod side;
#[path = "differential/tables.rs"]
mod tables;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use innkeeper_tests::clock::TestClock;
use innkeeper_tests::database::{Engine, TestDatabase};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use program::{Op, program};
use side::{Place, Side};
use tables::Columns;

/// What programs lead to, by a word of the answer: without it, nothing would be compared.
const SEEN: [(&str, &str); 15] = [
    ("Claim", "Attempt"),
    ("Complete", "Recorded"),
    ("Complete", "too late"),
    ("Checkpoint", "the lease is lost"),
    ("Rescue", "RescuedExecution"),
    ("ReleaseUnknown", "execution"),
    ("Plan", "FiredExecution"),
    ("Plan", "skipped: 1"),
    ("Resume", "paused_at: Some"),
    ("Backfill", "Made"),
    ("Enqueue", "created: false"),
    ("Cancel", "Cancelled"),
    ("Cancel", "Requested"),
    ("Settle", "Some(Ended(Cancelled))"),
    ("Repeat", "As"),
];

#[tokio::test(flavor = "multi_thread")]
async fn any_program_of_operations_does_the_same_on_both_engines() {
    let postgres = TestDatabase::migrated(Engine::Postgres).await;
    let columns = Columns::of(&postgres).await;
    let sqlite = Place::new(TestDatabase::migrated(Engine::Sqlite).await, &columns).await;
    let places = RefCell::new((sqlite, Place::new(postgres, &columns).await));
    let seen = RefCell::new(BTreeSet::new());
    let runtime = tokio::runtime::Handle::current();
    for seed in seeds() {
        println!("INNKEEPER_SEED={seed}");
        tokio::task::block_in_place(|| {
            let config = Config { failure_persistence: None, ..config() };
            let mut runner = TestRunner::new_with_rng(config, rng(seed));
            let result = runner.run(&program(), |ops| {
                let (mut places, mut seen) = (places.borrow_mut(), seen.borrow_mut());
                let result = runtime.block_on(check(&mut places, &columns, &ops, &mut seen));
                result.map_err(|failure| TestCaseError::fail(failure.why))
            });
            if let Err(TestError::Fail(_, ops)) = result {
                let mut fails = |ops: &[Op]| {
                    let result = runtime.block_on(check(
                        &mut places.borrow_mut(),
                        &columns,
                        ops,
                        &mut BTreeSet::new(),
                    ));
                    result.err()
                };
                let (ops, why) = shortest(ops, &mut fails);
                let ops: Vec<String> = ops.iter().map(|op| format!("{op:?}")).collect();
                panic!("INNKEEPER_SEED={seed}\n{}\n{why}", ops.join("\n"));
            }
        });
    }
    if std::env::var_os("INNKEEPER_SEED").is_none() {
        assert_eq!(seen.into_inner(), SEEN.into(), "what was seen, and what must be");
    }
}

/// What is left of a program when every step is gone that it fails without.
fn shortest(mut ops: Vec<Op>, fails: &mut impl FnMut(&[Op]) -> Option<Failure>) -> (Vec<Op>, String) {
    let Some(mut failure) = fails(&ops) else { return (ops, "it fails now and then".to_owned()) };
    for step in (0..ops.len()).rev() {
        ops.truncate(failure.step + 1);
        if step >= ops.len() {
            continue;
        }
        let mut fewer = ops.clone();
        fewer.remove(step);
        if let Some(still) = fails(&fewer) {
            (ops, failure) = (fewer, still);
        }
    }
    (ops, failure.why)
}

/// A program that failed.
#[derive(Debug)]
struct Failure {
    step: usize,
    why: String,
}

/// 10 programs of each seed unless `PROPTEST_CASES` says otherwise.
fn config() -> Config {
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { Config::default().cases } else { 10 };
    Config { cases, max_shrink_iters: 0, ..Config::default() }
}

/// One that is always the same, of which it is known that it leads to [`SEEN`], and another.
fn seeds() -> Vec<u64> {
    match std::env::var("INNKEEPER_SEED") {
        Ok(seed) => vec![seed.parse().expect("INNKEEPER_SEED is a number")],
        Err(_) => vec![19, uuid::Uuid::new_v4().as_u64_pair().0],
    }
}

fn rng(seed: u64) -> TestRng {
    let seed: Vec<u8> = seed.to_le_bytes().into_iter().cycle().take(32).collect();
    TestRng::from_seed(RngAlgorithm::ChaCha, &seed)
}

/// Runs one program on both.
async fn check(
    places: &mut (Place, Place),
    columns: &Columns,
    ops: &[Op],
    seen: &mut BTreeSet<(&'static str, &'static str)>,
) -> Result<(), Failure> {
    let clock = TestClock::at("2026-03-01T12:00:00Z");
    let mut sqlite = Side::begin(&mut places.0, columns, &clock).await;
    let mut postgres = Side::begin(&mut places.1, columns, &clock).await;
    let mut result = Ok(());
    let mut before = sqlite.tables().await;
    for (number, op) in ops.iter().enumerate() {
        // Nothing happens twice at one time, so that what is ordered by time has one order.
        clock.advance(Duration::from_micros(1));
        if let Op::Wait(millis) = op {
            clock.advance(Duration::from_millis(*millis));
        }
        let (here, there) = tokio::join!(sqlite.step(number, op), postgres.step(number, op));
        let kind = format!("{op:?}");
        seen.extend(SEEN.iter().filter(|(op, word)| kind.starts_with(op) && here.text.contains(word)));
        let (after, others) = tokio::join!(sqlite.tables(), postgres.tables());
        let mut wrong = after.differences(&others);
        if here != there {
            wrong.push(format!("SQLite answered {here:?}, PostgreSQL {there:?}"));
        }
        wrong.extend(invariants::broken(&before, &after));
        if here.was_late {
            wrong.extend(invariants::broken_by_what_came_too_late(&before, &after));
        }
        if !wrong.is_empty() {
            result = Err(Failure { step: number, why: format!("{op:?}: {wrong:#?}") });
            break;
        }
        before = after;
    }
    if result.is_ok() {
        let (here, there) = (sqlite.view().await, postgres.view().await);
        for (here, there) in here.iter().zip(&there) {
            if here != there {
                let why = format!("SQLite shows {here}, PostgreSQL {there}");
                result = Err(Failure { step: ops.len(), why });
                break;
            }
        }
    }
    // For the sake of the next program.
    sqlite.end().await;
    postgres.end().await;
    result
}
