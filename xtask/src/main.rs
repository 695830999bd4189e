//! What `cargo xtask …` does: the project's own commands, with nothing to install first.
//!
//! Thin on purpose: it depends on std, anyhow and libc only, so that it compiles in seconds
//! before the first command runs. Read in this order: [`mod@test`] and [`demo`] are the two
//! commands of the README, [`lint`] is what CI does besides, [`mod@bench`] measures, [`chaos`]
//! strikes, [`simulate`] lets months pass, [`fuzz`] makes up inputs, and [`soak`] runs for an hour; [`toolchain`], [`postgres`] and [`django`] provide what
//! they need, and [`process`] runs children and ends them.

mod apt;
mod bench;
mod cargo;
mod chaos;
mod demo;
mod django;
mod fuzz;
mod lint;
mod postgres;
mod process;
mod program;
mod server_program;
mod simulate;
mod soak;
mod steps;
mod summary;
mod test;
mod toolchain;

use std::process::ExitCode;

use steps::Steps;

const HELP: &str = "\
The project's own commands. Usage: cargo xtask COMMAND

  test [--fsync] [FILTER…] [-- ARGS…]
        Build everything, start a PostgreSQL, run every test on both engines, stop it again.
        Installs Django from PyPI into the target folder, for the tests that use it.
        FILTERs choose tests by a part of their name; ARGS go to the test programs.
  test sessions [--fsync] [FILTER…] [-- ARGS…]
        The tests of what this product is for, alone.
  demo [--once] [--store sqlite|postgres] [--fsync] [-- ARGS…]
        Clean up 100,000 sessions on a schedule, and watch. Until Ctrl-C, or with --once until
        every job has succeeded and the result has been checked. The files are in demo-data/.
        ARGS go to the demo program.
  bench NAME [--json] [--quick] [--dev] [FILTER…]
        Measure, with the release profile, and print a table; with --json one JSON document.
        FILTERs choose figures by a part of their name; --quick measures a few rounds only, and
        --dev what is compiled for tests: both to see that it works, not for the figures.
        NAME is `db`: the `db` interface against native sqlx, on both engines; `engine`: whole
        executions against a bare loop, graphile-worker (needs Node.js and npm) and awa;
        `runtime`: executions without the store against bare wasmtime, plugins from the cache, a
        hostile neighbour; or `schedule`. The PostgreSQL that is started writes to the disk as in
        production.
  chaos [--seed N] [--faults F]
        Crash tests: strike three hosts on one PostgreSQL with F faults (20), which follow from the
        seed N, check that nothing was lost, and print a table. `test` does it with 20.
  simulate [--seed N] [--days D] [--engine sqlite|postgres] [--verbose]
        Simulate three hosts on one store for D days (30) of a virtual clock, with all that happens to
        them following from the seed N; check all the time what has to hold, and print what was done.
        `test` does it with three seeds.
  soak [--minutes N] [--rounds N] [--engine sqlite|postgres|both]
        Soak test: give a host on each engine (both) steady work of every kind for N minutes (60), look
        whether its memory, files, threads, connections or tables grow, and print a table. `test` does
        a short form of it.
  fuzz [TARGET] [--seconds N] [--seed N] [--verbose] [FILE]
        Give inputs that nobody thought of to what reads others' words: TARGET is `configuration`,
        `loading` (of components), `arguments` (of the host's functions), or all of them, each for N
        seconds (60). All inputs follow from the seed. What is found is kept in target/fuzz, and FILE gives
        it again. `test` does it with the corpus of tests/fuzz and a fixed number of inputs.
  lint  Check formatting, lints and documentation, warnings denied.
  ci    lint, then test: what .ci/run does.
  help  This text.

--fsync lets the PostgreSQL that is started here write to the disk as in production, which
crash tests and benchmarks want; it is off otherwise, because its data is thrown away.

Environment:
  INNKEEPER_TEST_POSTGRES_URL  test, bench, simulate, fuzz and soak on this PostgreSQL (a superuser's URL) and
                               start none.
  INNKEEPER_DEMO_POSTGRES_URL  the same for demo --store postgres.
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut args = args.iter().map(String::as_str);
    let command = args.next().unwrap_or("help");
    let rest: Vec<&str> = args.collect();
    if let Err(error) = process::listen_for_signals() {
        eprintln!("xtask: {error:#}");
        return ExitCode::FAILURE;
    }
    let mut steps = Steps::default();
    let result = match command {
        "test" => summary::close(&mut steps, |steps| test::run(steps, &rest)),
        "demo" => demo::run(&mut steps, &rest),
        "bench" => bench::run(&mut steps, &rest),
        "chaos" => chaos::run(&mut steps, &rest),
        "simulate" => simulate::run(&mut steps, &rest),
        "fuzz" => fuzz::run(&mut steps, &rest),
        "soak" => soak::run(&mut steps, &rest),
        "lint" => no_arguments(&rest).and_then(|()| lint::run(&mut steps)),
        "ci" => summary::close(&mut steps, |steps| {
            no_arguments(&rest)?;
            lint::run(steps)?;
            test::run(steps, &[])
        }),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        other => {
            eprintln!("xtask: there is no command `{other}`.\n");
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit_code(&error),
    }
}

/// Says what went wrong, unless that has been said, and gives it an exit code.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    if let Some(process::Interrupted { signal }) = error.downcast_ref() {
        // The convention of shells for a command that a signal ended.
        return ExitCode::from(u8::try_from(128 + signal).unwrap_or(1));
    }
    if let (Some(process::ChildFailed { code }), 1) = (error.downcast_ref(), error.chain().count()) {
        return ExitCode::from(*code);
    }
    if error.downcast_ref::<summary::Reported>().is_none() {
        eprintln!("xtask: {error:#}");
    }
    ExitCode::FAILURE
}

fn no_arguments(rest: &[&str]) -> anyhow::Result<()> {
    match rest.first() {
        None => Ok(()),
        Some(argument) => anyhow::bail!("`{argument}` is not expected here; see `cargo xtask help`"),
    }
}
