//! The simulation as a program. `cargo xtask simulate` builds and runs it.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use innkeeper_tests::database::Engine;
use innkeeper_tests::interrupt::interrupted;
use innkeeper_tests::simulate::{self, Options};

/// Simulates hosts on one store with a virtual clock, and checks what has to hold
#[derive(Parser)]
struct Arguments {
    /// Decides everything that happens; any if left out
    #[arg(long)]
    seed: Option<u64>,
    /// For how long, in simulated days
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3_650))]
    days: u32,
    /// On which engine
    #[arg(long, default_value = "sqlite")]
    engine: Which,
    /// Print all that happens on standard error
    #[arg(long)]
    verbose: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    Sqlite,
    Postgres,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { seed, days, engine, verbose } = Arguments::parse();
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let engine = match engine {
        Which::Sqlite => Engine::Sqlite,
        Which::Postgres => Engine::Postgres,
    };
    eprintln!("simulate: seed {seed}, {days} days");
    let result = tokio::select! {
        result = simulate::run(Options { seed, days, engine, is_loud: verbose }) => result,
        code = interrupted() => return code,
    };
    match result {
        Ok(report) => {
            print!("{report}");
            if report.violation.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("simulate: {error:#}");
            ExitCode::FAILURE
        }
    }
}
