//! The soak test as a program. `cargo xtask soak` builds and runs it.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use innkeeper_tests::database::Engine;
use innkeeper_tests::interrupt::interrupted;
use innkeeper_tests::soak::{self, Options};

/// Gives a host steady work for a long time, and looks whether it grows
#[derive(Parser)]
struct Arguments {
    /// How long, in minutes
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(soak::SHORTEST..))]
    minutes: u32,
    /// Rounds of 22 executions in each second
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// On which engine
    #[arg(long, default_value = "both")]
    engine: Which,
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    Sqlite,
    Postgres,
    /// Both at once, each with a host of its own
    Both,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { minutes, rounds, engine } = Arguments::parse();
    let engines: &[Engine] = match engine {
        Which::Sqlite => &[Engine::Sqlite],
        Which::Postgres => &[Engine::Postgres],
        Which::Both => &[Engine::Sqlite, Engine::Postgres],
    };
    let runs = engines.iter().map(|engine| soak::run(Options { engine: *engine, minutes, rounds }));
    let reports = tokio::select! {
        reports = futures_util::future::join_all(runs) => reports,
        code = interrupted() => return code,
    };
    for report in &reports {
        println!("{report}");
    }
    if reports.iter().all(soak::Report::is_flat) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
