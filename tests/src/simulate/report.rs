//! What is printed in the end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::database::Engine;

/// What was simulated, and what came of it.
#[derive(Debug)]
pub struct Report {
    /// What everything followed from.
    pub seed: u64,
    /// Simulated days.
    pub days: u32,
    /// On which engine.
    pub engine: Engine,
    /// In real time.
    pub took: Duration,
    /// What was counted, by name.
    pub counts: BTreeMap<&'static str, u64>,
    /// A number that two runs share exactly if the same happened in them.
    pub fingerprint: u64,
    /// What does not hold; none where all is well.
    pub violation: Option<Violation>,
}

/// Something that has to hold and does not.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The simulated time.
    pub at: String,
    /// What does not hold.
    pub what: String,
    /// What happened last, the latest at the end.
    pub events: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let engine = match self.engine {
            Engine::Sqlite => "SQLite",
            Engine::Postgres => "PostgreSQL",
        };
        let Self { seed, days, .. } = self;
        writeln!(f, "{days} days on {engine}, seed {seed}, {:.1} s\n", self.took.as_secs_f64())?;
        for (what, count) in &self.counts {
            writeln!(f, "{count:>8}  {what}")?;
        }
        writeln!(f, "\nfingerprint {:016x}", self.fingerprint)?;
        let Some(violation) = &self.violation else {
            return writeln!(f, "Every fire is on record, no limit was exceeded, and nothing is left over.");
        };
        writeln!(f, "\nVIOLATED on {}: {}\n\nWhat happened last:", violation.at, violation.what)?;
        for event in &violation.events {
            writeln!(f, "  {event}")?;
        }
        let engine = engine.to_lowercase().replace("postgresql", "postgres");
        writeln!(f, "\nTo repeat it: cargo xtask simulate --seed {seed} --days {days} --engine {engine}")
    }
}
