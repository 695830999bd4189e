//! The simulation, as far as it fits into every run. `docs/simulation.md` says what is simulated.

use innkeeper_tests::database::Engine;
use innkeeper_tests::simulate::{self, Options, Report};

async fn simulate(seed: u64, days: u32, engine: Engine) -> Report {
    let report = simulate::run(Options { seed, days, engine, is_loud: false }).await;
    let report = report.unwrap_or_else(|error| panic!("{error:#}"));
    assert!(report.violation.is_none(), "{report}");
    eprintln!("{report}");
    report
}

#[tokio::test]
async fn thirty_days_of_the_first_seed_break_no_promise() {
    simulate(1, 30, Engine::Sqlite).await;
}

#[tokio::test]
async fn thirty_days_of_the_second_seed_break_no_promise() {
    simulate(2, 30, Engine::Sqlite).await;
}

#[tokio::test]
async fn thirty_days_of_the_third_seed_break_no_promise() {
    simulate(3, 30, Engine::Sqlite).await;
}

#[tokio::test]
async fn four_days_on_postgresql_break_no_promise() {
    simulate(4, 4, Engine::Postgres).await;
}

#[tokio::test]
async fn the_same_seed_does_the_same_again() {
    let first = simulate(5, 2, Engine::Sqlite).await;
    let again = simulate(5, 2, Engine::Sqlite).await;
    assert_eq!(first.fingerprint, again.fingerprint);
    assert_eq!(first.counts, again.counts);
}
