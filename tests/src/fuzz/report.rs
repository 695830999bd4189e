//! What a run was, for people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::{Finding, sorted};

/// What was done, and what was found.
#[derive(Debug)]
pub struct Report {
    /// What was fuzzed.
    pub target: &'static str,
    /// What everything followed from.
    pub seed: u64,
    /// How many inputs got how far.
    pub stages: BTreeMap<String, u64>,
    /// How many inputs came from where.
    pub origins: BTreeMap<&'static str, u64>,
    /// Different things that inputs have shown.
    pub shown: BTreeSet<String>,
    /// Inputs that others were made of in the end.
    pub kept: usize,
    /// The longest that one input took.
    pub slowest: Duration,
    /// In all.
    pub time: Duration,
    /// Bytes that the process has more than after the seeds.
    pub grown: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(target: &'static str, seed: u64) -> Self {
        Self {
            target,
            seed,
            stages: BTreeMap::new(),
            origins: BTreeMap::new(),
            shown: BTreeSet::new(),
            kept: 0,
            slowest: Duration::ZERO,
            time: Duration::ZERO,
            grown: 0,
            findings: Vec::new(),
        }
    }

    /// Inputs in all.
    #[must_use]
    pub fn inputs(&self) -> u64 {
        self.origins.values().sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} with seed {}: {} inputs in {:.0} s, the slowest {} ms; {} different things shown, {} inputs in \
             the pool; the process has grown by {} MiB",
            self.target,
            self.seed,
            self.inputs(),
            self.time.as_secs_f64(),
            self.slowest.as_millis(),
            self.shown.len(),
            self.kept,
            self.grown >> 20,
        )?;
        for (stage, count) in sorted(&self.stages) {
            writeln!(f, "{count:>10}  {stage}")?;
        }
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        Ok(())
    }
}
