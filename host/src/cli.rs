//! What a person types: one file for each group of commands.
//!
//! A command returns a `Report` or a `CliError`. Here, and only here, it is printed: with
//! `--json` one document on standard output and nothing else there; complaints, and what is
//! being waited for, go to standard error. What has no end to wait for (`execution logs --follow`) prints
//! line by line, and with `--json` a document in each. Exit codes: 0 done, 1 the job run with `--wait` did not succeed, what
//! `check --against-store` compares differs, or a host refused what it was asked for, 2 usage or configuration, 3 the store,
//! or a host that is needed, could not be reached, 130 ended by Ctrl-C.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde::Serialize;
use serde_json::Value;

use crate::config::{Config, ConfigErrors};
use crate::engine::store_options;
use crate::engine::submit::SubmitError;
use crate::store::{Store, StoreError, StoreOptions};

mod check;
mod compile_component;
mod execution;
mod fires;
mod grace;
mod grants;
mod host;
mod init;
mod job;
mod migrate;
mod period;
mod plugin;
mod queue;
mod reload;
mod schedule;
mod sentence;
mod serve;
mod store;
mod table;

/// Runs WebAssembly job handlers on a schedule, each database call in a transaction of its own.
#[derive(Debug, Parser)]
#[command(name = "innkeeper", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, clap::Args)]
struct Global {
    /// The configuration file.
    #[arg(
        long,
        global = true,
        env = "INNKEEPER_CONFIG",
        default_value = "innkeeper.toml",
        value_name = "FILE"
    )]
    config: PathBuf,
    /// Print one JSON document instead of text.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a commented innkeeper.toml to start from.
    Init(init::Init),
    /// Run the host until SIGINT or SIGTERM, then drain it.
    Serve(serve::Serve),
    /// Validate the file, its plugins, handlers, arguments and schedules.
    Check(check::Check),
    /// Bring the store's schema up to date.
    Migrate(migrate::Migrate),
    /// Look at jobs, run, pause and explain them.
    #[command(subcommand)]
    Job(job::JobCommand),
    /// Look at when schedules fire.
    #[command(subcommand)]
    Schedule(schedule::ScheduleCommand),
    /// Look at queues and pause them.
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// Look at executions, cancel and repeat them.
    #[command(subcommand)]
    Execution(execution::ExecutionCommand),
    /// Look at plugins, have hosts load them anew, go back to the version before.
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Look at hosts, have them drain or load anew.
    #[command(subcommand)]
    Host(host::HostCommand),
    /// Keep the store.
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// What a host starts to have a component compiled.
    #[command(hide = true)]
    CompileComponent(compile_component::CompileComponent),
}

/// What a command found out.
struct Report {
    /// None where the command has printed what it found as it went.
    json: Option<Value>,
    text: String,
    exit: Exit,
}

impl Report {
    /// # Panics
    /// Never: our own types are JSON.
    fn new(json: &impl Serialize, text: impl Into<String>) -> Self {
        let json = serde_json::to_value(json).unwrap_or(Value::Null);
        Self { json: Some(json), text: text.into(), exit: Exit::Done }
    }

    /// Of a command that has printed all of it, by [`print_line`].
    fn printed(exit: Exit) -> Self {
        Self { json: None, text: String::new(), exit }
    }
}

/// The exit codes, which scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Done = 0,
    JobFailed = 1,
    Usage = 2,
    Unreachable = 3,
    /// As shells have it of what SIGINT ended.
    Interrupted = 130,
}

impl Exit {
    /// What was compared is not the same.
    const DIFFERENT: Self = Self::JobFailed;
    /// A host goes on as it was.
    const REFUSED: Self = Self::JobFailed;
}

/// A command that could not do its work.
#[derive(Debug)]
struct CliError {
    exit: Exit,
    message: String,
}

impl CliError {
    fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into() }
    }

    fn unreachable(message: impl Into<String>) -> Self {
        Self { exit: Exit::Unreachable, message: message.into() }
    }
}

/// Several complaints as one message, which is printed after an `error: `.
fn one_by_one(messages: impl IntoIterator<Item = String>) -> String {
    messages.into_iter().collect::<Vec<_>>().join("\nerror: ")
}

impl From<ConfigErrors> for CliError {
    fn from(errors: ConfigErrors) -> Self {
        Self::usage(one_by_one(errors.iter().map(ToString::to_string)))
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::UnknownJob { .. } | StoreError::Invalid(_) => Self::usage(message),
            _ => Self::unreachable(message),
        }
    }
}

impl From<SubmitError> for CliError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::UnknownJob(message) | SubmitError::InvalidArgs(message) => Self::usage(message),
            SubmitError::Store(error) => error.into(),
        }
    }
}

/// Parses the arguments, runs the command, and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { Exit::Usage as u8 } else { Exit::Done as u8 });
        }
    };
    // Without an async runtime: it is one thing after the other, and its memory is bounded.
    if let Command::CompileComponent(command) = &cli.command {
        return command.run();
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the async runtime could not be started: {error}");
            return ExitCode::from(Exit::Usage as u8);
        }
    };
    let json = cli.global.json;
    match runtime.block_on(run(cli)) {
        Ok(report) => {
            print_report(&report, json);
            ExitCode::from(report.exit as u8)
        }
        Err(error) => {
            eprintln!("error: {}", visible(&error.message));
            ExitCode::from(error.exit as u8)
        }
    }
}

async fn run(cli: Cli) -> Result<Report, CliError> {
    let Cli { global, command } = cli;
    match command {
        Command::Init(command) => init::run(&global, &command),
        Command::Serve(command) => serve::run(&global, &command).await,
        Command::Check(command) => check::run(&global, &command).await,
        Command::Migrate(command) => migrate::run(&global, &command).await,
        Command::Job(command) => job::run(&global, command).await,
        Command::Schedule(command) => schedule::run(&global, command).await,
        Command::Queue(command) => queue::run(&global, command).await,
        Command::Execution(command) => execution::run(&global, command).await,
        Command::Plugin(command) => plugin::run(&global, command).await,
        Command::Host(command) => host::run(&global, command).await,
        Command::Store(command) => store::run(&global, command).await,
        Command::CompileComponent(_) => Err(CliError::usage("it has run before the async runtime started")),
    }
}

fn print_report(report: &Report, json: bool) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    // A reader that closed the pipe has seen enough.
    let _ = if json {
        report.json.as_ref().map_or(Ok(()), |document| writeln!(out, "{document:#}"))
    } else if report.text.is_empty() {
        Ok(())
    } else {
        writeln!(out, "{}", visible(report.text.trim_end()))
    };
}

/// Prints a line while the command goes on. False: nobody reads any more.
fn print_line(line: &str) -> bool {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).is_ok()
}

/// What a handler printed may hold commands to a terminal; they are shown, not obeyed.
fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && !matches!(character, '\n' | '\t') {
            visible.extend(character.escape_default());
        } else {
            visible.push(character);
        }
    }
    visible
}

impl Global {
    fn load(&self) -> Result<Config, CliError> {
        Ok(Config::load(&self.config)?)
    }

    /// The configuration and its store, which has to be there already.
    async fn open_store(&self) -> Result<Store, CliError> {
        let config = self.load()?;
        let options = StoreOptions { max_connections: 1, ..store_options(&config) };
        let store = Store::connect(&config.store.url, &options).await?;
        store.check_schema().await?;
        Ok(store)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn commands_to_a_terminal_are_shown_and_other_text_is_left_alone() {
        assert_eq!(super::visible("zażółć\tgęślą\n\u{1b}[2Jx\u{9b}"), "zażółć\tgęślą\n\\u{1b}[2Jx\\u{9b}");
    }
}
