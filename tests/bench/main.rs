//! The benchmarks. `cargo xtask bench NAME` builds and runs them.
//!
//! What is compared runs in one process and in turns, so that whatever else the machine does
//! falls on both sides: a figure's ratio says more than its value. How the figures came about,
//! and what they were, is in `docs/performance.md`.
//!
//! A benchmark more is a module like [`mod@db`], a case of [`Bench`] and a line in
//! `xtask/src/bench.rs`.

mod awake;
mod db;
mod engine;
mod figure;
mod rounds;
mod runtime;
mod schedule;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use figure::Report;
use innkeeper::runtime::COMPILE_COMMAND;

/// Measures, and prints the figures
#[derive(Parser)]
struct Options {
    /// What to measure
    bench: Bench,
    /// Only figures with one of these in their names
    filters: Vec<String>,
    /// Print one JSON document instead of a table
    #[arg(long)]
    json: bool,
    /// Measure a few rounds only: to see that it works, not for the figures
    #[arg(long)]
    quick: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Bench {
    /// The `db` interface against native sqlx
    Db,
    /// Whole executions against a bare loop
    Engine,
    /// Executions without the store, and how soon plugins are there
    Runtime,
    /// When jobs fire next
    Schedule,
}

/// What to measure, and how long.
pub struct Selection {
    filters: Vec<String>,
    /// Few rounds.
    pub quick: bool,
}

impl Selection {
    /// True where a figure of this name is asked for.
    #[must_use]
    pub fn wants(&self, figure: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| figure.contains(filter.as_str()))
    }

    /// So many rounds, or three where it should be quick.
    #[must_use]
    pub fn rounds(&self, rounds: usize) -> usize {
        if self.quick { rounds.min(3) } else { rounds }
    }
}

fn main() -> ExitCode {
    // The hosts of the engine's benchmark are this program: what is measured is built once.
    // So is what they compile with.
    if std::env::args().nth(1).is_some_and(|command| ["serve", COMPILE_COMMAND].contains(&command.as_str())) {
        return innkeeper::cli::main();
    }
    measure()
}

// As many threads as the host's own runtime has.
#[tokio::main]
async fn measure() -> ExitCode {
    let Options { bench, filters, json, quick } = Options::parse();
    let selection = Selection { filters, quick };
    let mut report = Report::default();
    let result = match bench {
        Bench::Db => db::run(&selection, &mut report).await,
        Bench::Engine => engine::run(&selection, &mut report).await,
        Bench::Runtime => runtime::run(&selection, &mut report).await,
        Bench::Schedule => schedule::run(&selection, &mut report).await,
    };
    // What was measured before an error is worth reading; the exit code says that it is not all.
    print!("{}", if json { report.to_json() } else { report.to_table() });
    match result {
        Ok(()) if report.is_empty() && report.failed().is_empty() => {
            eprintln!("no figure has a name like {}", selection.filters.join(" or "));
            ExitCode::FAILURE
        }
        Ok(()) if report.failed().is_empty() => ExitCode::SUCCESS,
        Ok(()) => {
            eprintln!("not measured: {}", report.failed().join(", "));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(filters: &[&str], quick: bool) -> Selection {
        Selection { filters: filters.iter().map(ToString::to_string).collect(), quick }
    }

    #[test]
    fn a_filter_chooses_by_a_part_of_the_name() {
        assert!(selection(&[], false).wants("query_one_sqlite"));
        let some = selection(&["cursor", "one_postgres"], false);
        assert!(some.wants("cursor_1m_sqlite") && some.wants("query_one_postgres"));
        assert!(!some.wants("query_one_sqlite"));
    }

    #[test]
    fn a_quick_run_has_few_rounds() {
        assert_eq!(selection(&[], true).rounds(31), 3);
        assert_eq!(selection(&[], false).rounds(31), 31);
    }
}
