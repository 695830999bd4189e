//! The crash tests, as far as they fit into every run. `docs/reliability.md` says what is tested.

use innkeeper_tests::chaos::{self, Options};

/// Another one in every run, unless it is given: what is found is worth more than the same faults
/// again. A failure names it.
fn seed() -> u64 {
    match std::env::var("INNKEEPER_TEST_CHAOS_SEED") {
        Ok(seed) => seed.parse().expect("INNKEEPER_TEST_CHAOS_SEED is a number"),
        Err(_) => fastrand::u64(..1_000_000),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_everything_ends_once_whatever_twenty_faults_strike() {
    let report = chaos::run(Options { seed: seed(), faults: 20, is_loud: true }).await;
    let report = report.unwrap_or_else(|error| panic!("{error:#}"));
    assert!(report.violations.is_empty(), "{report}");
}
