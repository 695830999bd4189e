//! Fuzzing: inputs that nobody thought of, for what reads what others wrote.
//!
//! A [`Target`] makes inputs out of its seeds and says of each what came of it. [`run()`] drives one:
//! `worker` gives it a thread, a time and an eye on its memory, `finding` keeps what is wrong,
//! `minimise` makes it short. `docs/reliability.md` says what is tested, and how far inputs get.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub mod arguments;
mod bytes;
pub mod configuration;
mod finding;
pub mod loading;
mod memory;
mod minimise;
mod report;
#[cfg(test)]
mod tests;
mod worker;

pub use bytes::Random;
pub use finding::Finding;
pub use report::Report;

use worker::{Verdict, Worker};

/// What is fuzzed: something that reads bytes of somebody else's.
pub trait Target: Sized + 'static {
    /// Of its folder in the corpus, and on the command line.
    const NAME: &'static str;

    /// One input that takes longer is a finding. Far above what any takes, on a machine that does
    /// other things as well.
    const PATIENCE: Duration;

    /// One input for which the process needs so many bytes more than before is a finding.
    const MEMORY: u64;

    /// Sets up what all inputs are given to, on the thread that gives them.
    fn start() -> Self;

    /// Inputs to begin with, besides the corpus. Most of them are in order.
    fn seeds() -> Vec<Vec<u8>>;

    /// Makes another input of one or two from the pool.
    fn mutate(random: &mut Random, pool: &[Vec<u8>]) -> Vec<u8>;

    /// Takes one input. A panic is a finding as well, whoever catches it.
    ///
    /// # Errors
    /// What is wrong: the beginning, to the first line break, tells one finding from another.
    fn run(&mut self, input: &[u8]) -> Result<Reached, String>;

    /// Shorter forms of an input that may have the same effect, the shortest first.
    fn shorter(input: &[u8]) -> Vec<Vec<u8>> {
        bytes::shorter(input)
    }
}

/// What came of an input in which nothing was wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// How far it got, for the report.
    pub stage: String,
    /// What it has shown, such as the form of a message. An input that shows something new is kept,
    /// and others are made of it.
    pub features: Vec<String>,
}

/// How long.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// All inputs follow from it.
    pub seed: u64,
    /// So many inputs; none for any number.
    pub iterations: Option<u64>,
    /// No longer than this.
    pub time: Duration,
}

/// Inputs that are kept because they have shown something new, and how large each may be.
const MOST_KEPT: usize = 5_000;
const LARGEST_KEPT: usize = 64 << 10;

/// Who sees more different findings has enough to do.
const MOST_FINDINGS: usize = 10;

/// Gives the target its seeds, the corpus, and then what is made of them.
#[must_use]
pub fn run<T: Target>(options: Options) -> Report {
    let began = Instant::now();
    let mut driver = Driver::<T>::start(options.seed);
    let mut pool = T::seeds();
    pool.extend(corpus(T::NAME).into_iter().map(|(_, input)| input));
    for input in pool.clone() {
        driver.give(&input, "seed");
    }
    driver.settle_memory();
    let begun = Instant::now();
    for number in 0..options.iterations.unwrap_or(u64::MAX) {
        if begun.elapsed() >= options.time || driver.report.findings.len() >= MOST_FINDINGS {
            break;
        }
        // Each input has random numbers of its own: what one draws does not change the next.
        let mut random = Random::with_seed(options.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let input = T::mutate(&mut random, &pool);
        let is_new = driver.give(&input, "made");
        if is_new && pool.len() < MOST_KEPT && input.len() <= LARGEST_KEPT {
            pool.push(input);
        }
    }
    driver.report.kept = pool.len();
    driver.report.time = began.elapsed();
    driver.judge_memory();
    driver.report
}

/// Gives the target one input.
#[must_use]
pub fn replay<T: Target>(input: &[u8]) -> Report {
    let mut driver = Driver::<T>::start(0);
    driver.minimises = false;
    driver.give(input, "file");
    driver.report
}

/// The inputs of the corpus, by their names; none where the target has none.
///
/// # Panics
/// Where they cannot be read.
#[must_use]
pub fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let Ok(entries) = std::fs::read_dir(&folder) else { return Vec::new() };
    let paths: BTreeSet<PathBuf> =
        entries.map(|entry| entry.expect("the folder can be read").path()).collect();
    let read = |path: &PathBuf| {
        let input = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), input)
    };
    paths.iter().map(read).collect()
}

struct Driver<T: Target> {
    worker: Worker<T>,
    report: Report,
    minimises: bool,
    /// Resident bytes once everything has been set up and used.
    settled: Option<u64>,
}

impl<T: Target> Driver<T> {
    fn start(seed: u64) -> Self {
        Self { worker: Worker::start(), report: Report::new(T::NAME, seed), minimises: true, settled: None }
    }

    /// True where the input has shown something new.
    fn give(&mut self, input: &[u8], origin: &'static str) -> bool {
        let begun = Instant::now();
        let verdict = self.worker.run(input);
        self.report.slowest = self.report.slowest.max(begun.elapsed());
        *self.report.origins.entry(origin).or_default() += 1;
        match verdict {
            Verdict::Fine(reached) => {
                *self.report.stages.entry(reached.stage).or_default() += 1;
                let before = self.report.shown.len();
                self.report.shown.extend(reached.features);
                self.report.shown.len() > before
            }
            Verdict::Wrong(what) => {
                self.note(input, what);
                false
            }
        }
    }

    fn note(&mut self, input: &[u8], what: String) {
        let key = finding::key(&what);
        *self.report.stages.entry("FINDING".to_owned()).or_default() += 1;
        if self.report.findings.iter().any(|known| finding::key(&known.what) == key) {
            return;
        }
        // A hang cannot be ended, and each try at it would be another one.
        let can_be_tried = self.minimises && !what.starts_with(worker::HANG);
        let input =
            if can_be_tried { minimise::minimise(&mut self.worker, input, &key) } else { input.to_vec() };
        self.report.findings.push(Finding::keep(T::NAME, &input, what));
    }

    fn settle_memory(&mut self) {
        self.settled = Some(memory::resident());
    }

    /// What is kept of inputs would be growth without bound.
    fn judge_memory(&mut self) {
        let Some(settled) = self.settled else { return };
        let grown = memory::resident().saturating_sub(settled);
        self.report.grown = grown;
        if grown > T::MEMORY {
            let what = format!("the process has grown by {} MiB, and keeps them", grown >> 20);
            self.report.findings.push(Finding::keep(T::NAME, b"", what));
        }
    }
}

/// Counts by name, the most first.
fn sorted(counts: &BTreeMap<String, u64>) -> Vec<(&str, u64)> {
    let mut sorted: Vec<(&str, u64)> = counts.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    sorted
}
