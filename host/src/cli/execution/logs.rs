//! `innkeeper execution logs`: what a handler has logged and printed, a page at a time, however much it
//! is; with `--follow` until the execution has ended.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::json;
use uuid::Uuid;

use super::{error_text, find, unknown};
use crate::cli::grace::{Grace, Trouble, patience};
use crate::cli::{CliError, Exit, Report, print_line, visible};
use crate::execution::State;
use crate::store::{
    AttemptOutcome, AttemptRecord, ExecutionRecord, LogPosition, LogRecord, Store, StoreError,
};
use crate::wire;

/// Lines that are read at a time.
const PAGE: u32 = 500;

/// How often the store is asked for more. Nobody is woken for a line.
const POLL: Duration = Duration::from_millis(500);

/// Attempts whose ends are told, at each look. Of more within [`POLL`] the newest are told.
const ATTEMPTS: u32 = 20;

/// The log as it is now: text is printed page by page, a document is one.
pub(super) async fn all(store: &Store, id: Uuid, as_json: bool) -> Result<Report, CliError> {
    let mut position = LogPosition::default();
    let mut lines = Vec::new();
    loop {
        let page = store.logs_after(id, position, PAGE).await?;
        let is_last = page.len() < PAGE as usize;
        for record in page {
            position = record.position();
            if as_json {
                lines.push(wire::Log::from(record));
            } else if !print_line(&in_text(record)) {
                return Ok(Report::printed(Exit::Done));
            }
        }
        if is_last {
            break;
        }
    }
    if as_json {
        return Ok(Report::new(&json!({ "execution": id.to_string(), "logs": lines }), ""));
    }
    if position == LogPosition::default() {
        print_line("Its handler has logged nothing yet.");
    }
    Ok(Report::printed(Exit::Done))
}

/// The log as it grows, until the execution has ended, nobody reads any more, or Ctrl-C.
pub(super) async fn follow(store: &Store, id: Uuid, as_json: bool) -> Result<Report, CliError> {
    let record = find(store, id).await?;
    if !record.state.is_final() {
        tell(&format!("execution {id} is {}; Ctrl-C stops following it", record.state.as_str()));
    }
    let mut follower =
        Follower { store, id, as_json, position: LogPosition::default(), told: 0, grace: Grace::default() };
    tokio::select! {
        ended = follower.run() => ended.map(|()| Report::printed(Exit::Done)),
        _ = tokio::signal::ctrl_c() => Ok(Report::printed(Exit::Interrupted)),
    }
}

struct Follower<'a> {
    store: &'a Store,
    id: Uuid,
    as_json: bool,
    position: LogPosition,
    /// The lease of the last attempt whose end was told.
    told: i64,
    grace: Grace,
}

/// Whether there is more to come.
#[derive(PartialEq, Eq)]
enum More {
    MayCome,
    IsNone,
}

impl Follower<'_> {
    async fn run(&mut self) -> Result<(), CliError> {
        loop {
            match self.look().await {
                Ok(More::IsNone) => return Ok(()),
                Ok(More::MayCome) => self.grace = Grace::default(),
                Err(StoreError::Unavailable(why)) => match self.grace.note(Instant::now()) {
                    Trouble::New => tell(&patience(&format!("the store does not answer: {why}"))),
                    Trouble::Going => {}
                    Trouble::TooLong => return Err(StoreError::Unavailable(why).into()),
                },
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Prints what there is now. What an attempt has written is there once its end is, and so is
    /// everything once the execution has ended: so ends are asked for before lines.
    async fn look(&mut self) -> Result<More, StoreError> {
        let mut attempts = self.store.attempts(self.id, ATTEMPTS).await?;
        let Some(record) = self.store.execution(self.id).await? else {
            return Err(StoreError::Invalid(unknown(self.id)));
        };
        if record.state.is_final() {
            attempts = self.store.attempts(self.id, ATTEMPTS).await?;
            // How the last one ended is how the execution did.
            attempts.pop();
        }
        let mut ends = attempts.into_iter().filter(|attempt| attempt.outcome.is_some()).peekable();
        loop {
            let page = self.store.logs_after(self.id, self.position, PAGE).await?;
            let is_last = page.len() < PAGE as usize;
            for line in page {
                while let Some(end) = ends.next_if(|end| end.lease < line.lease) {
                    self.tell_end(&end, &record);
                }
                self.position = line.position();
                let told = if self.as_json { in_json(line) } else { in_text(line) };
                if !print_line(&told) {
                    return Ok(More::IsNone);
                }
            }
            if is_last {
                break;
            }
        }
        ends.for_each(|end| self.tell_end(&end, &record));
        if record.state.is_final() {
            tell(&last_words(&record));
            return Ok(More::IsNone);
        }
        Ok(More::MayCome)
    }

    /// The end of an attempt that was not the last.
    fn tell_end(&mut self, end: &AttemptRecord, record: &ExecutionRecord) {
        if end.lease <= self.told {
            return;
        }
        self.told = end.lease;
        let mut text = format!("attempt {} of {}", end.attempt, record.max_attempts);
        let host = end.host.as_deref().unwrap_or("?");
        match (end.outcome, &end.error) {
            (Some(AttemptOutcome::Released), _) => {
                let _ = write!(text, " was given back by host `{host}`, and does not count");
            }
            (_, Some(error)) => {
                let _ = write!(text, " ended on host `{host}`: {}", error_text(error));
            }
            (_, None) => {
                let _ = write!(text, " ended on host `{host}`");
            }
        }
        if let (State::Retrying, Some(due)) = (record.state, record.due_at)
            && end.attempt == record.attempt
        {
            let _ = write!(text, "; the next one is due at {due}");
        }
        tell(&text);
    }
}

fn last_words(record: &ExecutionRecord) -> String {
    let why = record.error.as_ref().map(|error| format!(": {}", error_text(error))).unwrap_or_default();
    match record.state {
        State::Succeeded => format!("execution {} succeeded", record.id),
        State::Failed => format!("execution {} failed{why}", record.id),
        state => format!("execution {} is {}{why}", record.id, state.as_str()),
    }
}

/// What is no line of the log goes to standard error, where it is in nobody's way.
fn tell(text: &str) {
    eprintln!("{}", visible(text));
}

fn in_text(record: LogRecord) -> String {
    let log = wire::Log::from(record);
    let mut text = format!("{} [{}] {:5} {}", log.at, log.attempt, log.level, log.message);
    for (name, value) in &log.fields {
        let _ = write!(text, " {name}={value}");
    }
    visible(&text)
}

fn in_json(record: LogRecord) -> String {
    serde_json::to_string(&wire::Log::from(record)).unwrap_or_default()
}
