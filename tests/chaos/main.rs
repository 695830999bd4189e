//! The crash tests as a program. `cargo xtask chaos` builds and runs it.

use std::process::ExitCode;

use clap::Parser;
use innkeeper_tests::chaos::{self, Options};
use innkeeper_tests::interrupt::interrupted;

/// Strikes three hosts with faults, and checks that nothing was lost
#[derive(Parser)]
struct Arguments {
    /// Decides which faults strike, where, and in which order; any if left out
    #[arg(long)]
    seed: Option<u64>,
    /// How many faults
    #[arg(long, default_value_t = 20)]
    faults: usize,
    /// Only list them
    #[arg(long)]
    list: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { seed, faults, list } = Arguments::parse();
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    eprintln!("chaos: seed {seed}");
    if list {
        for fault in chaos::plan::deal(seed, faults, chaos::HOSTS) {
            println!("{fault}");
        }
        return ExitCode::SUCCESS;
    }
    let run = chaos::run(Options { seed, faults, is_loud: true });
    let result = tokio::select! {
        result = run => result,
        code = interrupted() => return code,
    };
    match result {
        Ok(report) => {
            print!("{report}");
            if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}
