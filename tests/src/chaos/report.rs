//! What is printed in the end.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::plan::{Fault, Kind, Phase};

/// What was done, and what came of it.
#[derive(Debug)]
pub struct Report {
    /// Of the faults.
    pub seed: u64,
    /// In their order.
    pub faults: Vec<Fault>,
    /// All of it.
    pub took: Duration,
    /// What was counted, by name.
    pub counts: Vec<(&'static str, i64)>,
    /// What does not hold; nothing where all is well.
    pub violations: Vec<String>,
    /// The hosts' logs and configurations, where something does not hold.
    pub folder: PathBuf,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} faults, seed {}, {} s\n", self.faults.len(), self.seed, self.took.as_secs())?;
        self.table(f)?;
        writeln!(f)?;
        for (what, count) in &self.counts {
            writeln!(f, "{count:>8}  {what}")?;
        }
        writeln!(f)?;
        if self.violations.is_empty() {
            return writeln!(f, "Nothing was lost, and everything has ended once.");
        }
        for violation in &self.violations {
            writeln!(f, "VIOLATED: {violation}")?;
        }
        writeln!(f, "\nThe seed is {}, and the hosts' logs are in {}", self.seed, self.folder.display())
    }
}

impl Report {
    /// Markdown, for `docs/reliability.md`.
    fn table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = Kind::ALL.map(|kind| kind.title().len()).into_iter().max().unwrap_or(0);
        let titles = Phase::ALL.map(Phase::title);
        writeln!(f, "| {:width$} | {} | all |", "", titles.join(" | "))?;
        let rules = titles.map(|title| format!("{}:", "-".repeat(title.len() + 1)));
        writeln!(f, "|{}|{}|----:|", "-".repeat(width + 2), rules.join("|"))?;
        for kind in Kind::ALL {
            let of_kind: Vec<&Fault> = self.faults.iter().filter(|fault| fault.kind == kind).collect();
            write!(f, "| {:width$} |", kind.title())?;
            for phase in Phase::ALL {
                let count = of_kind.iter().filter(|fault| fault.phase == phase).count();
                write!(f, " {count:>0$} |", phase.title().len())?;
            }
            writeln!(f, " {:>3} |", of_kind.len())?;
        }
        Ok(())
    }
}
