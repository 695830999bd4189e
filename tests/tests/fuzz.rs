//! Fuzzing, as far as it fits into every run: the corpus, and a number of inputs that are made up. The
//! number is fixed, so that the same is tested on every machine. `docs/reliability.md` says what is
//! tested; `cargo xtask fuzz` does it for longer.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use innkeeper_tests::fuzz::arguments::Arguments;
use innkeeper_tests::fuzz::configuration::Configuration;
use innkeeper_tests::fuzz::loading::Loading;
use innkeeper_tests::fuzz::{Options, Target, corpus, run};

/// Another seed each time finds more over the months; a finding names the file that repeats it.
const SEED: &str = "INNKEEPER_TEST_FUZZ_SEED";

/// Far more than it takes, for machines that do other things as well.
const MOST: Duration = Duration::from_secs(300);

/// Panics are those of the whole process, so one target is fuzzed at a time.
static ONE: Mutex<()> = Mutex::new(());

fn nothing_is_found<T: Target>(iterations: u64) {
    let _alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(!corpus(T::NAME).is_empty(), "the corpus is not where it was");
    let given = std::env::var(SEED).ok().map(|seed| seed.parse().expect("a seed is a number"));
    let seed = given.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let report = run::<T>(Options { seed, iterations: Some(iterations), time: MOST });
    println!("{report}");
    assert!(report.findings.is_empty(), "{report}\n{SEED}={seed} makes the same inputs again");
}

#[test]
fn no_configuration_panics_hangs_or_is_refused_without_a_place() {
    nothing_is_found::<Configuration>(4_000);
}

#[test]
fn no_component_panics_hangs_or_harms_the_next_one() {
    nothing_is_found::<Loading>(1_000);
}

#[test]
fn no_argument_panics_hangs_or_leaves_anything_behind() {
    nothing_is_found::<Arguments>(400);
}
