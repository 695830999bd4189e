//! The fuzz targets as a program. `cargo xtask fuzz` builds and runs it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use innkeeper_tests::fuzz::arguments::Arguments;
use innkeeper_tests::fuzz::configuration::Configuration;
use innkeeper_tests::fuzz::loading::Loading;
use innkeeper_tests::fuzz::{self, Options, Report, Target};

/// Gives what reads others' words inputs that nobody thought of
#[derive(Parser)]
struct CommandLine {
    /// What is fuzzed; everything, one after the other, where it is left out
    target: Option<Which>,
    /// One input, as a finding names it
    #[arg(requires = "target")]
    file: Option<PathBuf>,
    /// How long each
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many inputs at most
    #[arg(long)]
    inputs: Option<u64>,
    /// What everything follows from
    #[arg(long)]
    seed: Option<u64>,
    /// Print also what the inputs have shown, such as the forms of messages
    #[arg(long)]
    verbose: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    Configuration,
    Loading,
    Arguments,
}

fn main() -> ExitCode {
    let arguments = CommandLine::parse();
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let options =
        Options { seed, iterations: arguments.inputs, time: Duration::from_secs(arguments.seconds) };
    let targets = arguments.target.map_or_else(|| Which::value_variants().to_vec(), |target| vec![target]);
    let mut is_fine = true;
    for target in targets {
        let report = match target {
            Which::Configuration => fuzz_or_replay::<Configuration>(options, arguments.file.as_ref()),
            Which::Arguments => fuzz_or_replay::<Arguments>(options, arguments.file.as_ref()),
            Which::Loading => fuzz_or_replay::<Loading>(options, arguments.file.as_ref()),
        };
        if arguments.verbose {
            report.shown.iter().for_each(|shown| println!("{shown}"));
        }
        println!("{report}");
        is_fine &= report.findings.is_empty();
    }
    if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn fuzz_or_replay<T: Target>(options: Options, file: Option<&PathBuf>) -> Report {
    match file {
        None => {
            eprintln!("fuzzing {} with --seed {}", T::NAME, options.seed);
            fuzz::run::<T>(options)
        }
        Some(file) => {
            let input = std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            fuzz::replay::<T>(&input)
        }
    }
}
