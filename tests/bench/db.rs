//! The `db` interface: a real component in the real runtime, against the same in native sqlx.
//!
//! Both sides begin and commit, use the same tables, and have pools of the same size that do not
//! ask a connection whether it is alive before they hand it out. Each runs in a task of the same
//! async runtime, as it would in a program of its own.

mod guest;
mod memory;
mod native;
mod overrun;
mod tables;

use anyhow::{Result, ensure};
use innkeeper_tests::database::Engine;
use serde_json::{Value, json};

use crate::Selection;
use crate::awake::Awake;
use crate::figure::{Figure, Goal, Report};
use crate::rounds::{Round, alternate};
use guest::Guest;
use native::Native;
use tables::{Statements, Tables};

/// Connections of each side's pool.
const CONNECTIONS: u32 = 4;

/// Rows of the table that is read as a whole, and of what is written at once.
const TEN_THOUSAND: u32 = 10_000;

/// Rows that a cursor fetches at a time.
const BATCH: u32 = 1_000;

const NATIVE: &str = "native sqlx";

/// One thing, done by both sides.
#[derive(Clone, Copy)]
enum Subject {
    QueryOne,
    /// The same on a machine that does nothing else.
    QueryOneAsleep,
    Query10k,
    ExecuteMany10k,
    Cursor1m,
}

/// Everything on one engine.
struct Bench {
    engine: Engine,
    guest: Guest,
    native: Native,
    statements: &'static Statements,
    /// Last, so that the database is dropped after its connections are closed.
    tables: Tables,
}

impl Subject {
    const ALL: [Self; 5] =
        [Self::QueryOne, Self::QueryOneAsleep, Self::Query10k, Self::ExecuteMany10k, Self::Cursor1m];

    fn name(self) -> &'static str {
        match self {
            Self::QueryOne => "query_one",
            Self::QueryOneAsleep => "query_one_cores_asleep",
            Self::Query10k => "query_10k",
            Self::ExecuteMany10k => "execute_many_10k",
            Self::Cursor1m => "cursor_1m",
        }
    }

    /// What the ratio should be at most.
    fn goal(self) -> f64 {
        match self {
            Self::QueryOne | Self::QueryOneAsleep => 1.2,
            Self::ExecuteMany10k => 1.3,
            Self::Query10k | Self::Cursor1m => 1.5,
        }
    }

    fn rounds(self) -> usize {
        match self {
            Self::QueryOne | Self::QueryOneAsleep => 41,
            Self::Query10k => 25,
            Self::ExecuteMany10k => 15,
            Self::Cursor1m => 9,
        }
    }

    /// Times in one round: enough that the clocks and the start of a call do not matter.
    fn calls(self) -> u32 {
        match self {
            Self::QueryOne | Self::QueryOneAsleep => 250,
            Self::Query10k => 5,
            Self::ExecuteMany10k | Self::Cursor1m => 1,
        }
    }

    fn unit(self) -> (&'static str, f64) {
        match self {
            Self::QueryOne | Self::QueryOneAsleep => ("us", 1e3),
            _ => ("ms", 1e6),
        }
    }
}

/// Measures what is selected.
///
/// # Errors
/// Where nothing can be measured at all.
pub async fn run(selection: &Selection, report: &mut Report) -> Result<()> {
    let mut benches = Vec::new();
    for engine in [Engine::Sqlite, Engine::Postgres] {
        if names(engine).any(|name| selection.wants(&name)) {
            benches.push(Bench::prepare(engine).await?);
        }
    }
    // First, as long as this process has not grown for other reasons.
    for bench in &benches {
        memory::measure(bench, selection, report).await;
    }
    for bench in &benches {
        for subject in Subject::ALL {
            let name = name_on(bench.engine, subject.name());
            if selection.wants(&name) {
                let measured = bench.compare(&name, subject, selection).await;
                report.add(&name, measured);
            }
        }
        overrun::measure(bench, selection, report).await;
    }
    for bench in benches {
        bench.guest.close().await;
        bench.native.close().await;
    }
    Ok(())
}

/// The names of all figures of an engine.
fn names(engine: Engine) -> impl Iterator<Item = String> {
    let compared = Subject::ALL.into_iter().map(Subject::name);
    compared.chain(memory::NAMES).chain(overrun::NAMES).map(move |name| name_on(engine, name))
}

fn name_on(engine: Engine, name: &str) -> String {
    match engine {
        Engine::Sqlite => format!("{name}_sqlite"),
        Engine::Postgres => format!("{name}_postgres"),
    }
}

impl Bench {
    async fn prepare(engine: Engine) -> Result<Self> {
        let tables = Tables::make(engine).await?;
        eprintln!("{}", tables.about);
        let guest = Guest::load(tables.url()).await?;
        let native = Native::open(tables.url())?;
        Ok(Self { engine, guest, native, statements: tables.statements, tables })
    }

    async fn compare(&self, name: &str, subject: Subject, selection: &Selection) -> Result<Figure> {
        let rounds = selection.rounds(subject.rounds());
        // What is short is not to depend on how long a core takes to wake up.
        let _awake = matches!(subject, Subject::QueryOne).then(Awake::keep).transpose()?;
        let comparison = alternate(rounds, async || self.round(subject).await).await?;
        Ok(Figure {
            name: name.to_owned(),
            value: comparison.value,
            unit: subject.unit().0,
            against: Some(NATIVE),
            ratio: Some(comparison.ratio),
            goal: Some(Goal::AtMost(subject.goal())),
            between: Some(comparison.between),
        })
    }

    async fn round(&self, subject: Subject) -> Result<Round> {
        self.make_room(subject).await?;
        let ours = self.guest.measure(handler_of(subject), self.args_of(subject)).await?;
        self.make_room(subject).await?;
        let theirs = self.native.measure(subject, self.statements, subject.calls()).await?;
        ensure!(
            ours.sum == theirs.sum,
            "the two sides did not do the same: {} and {} are the sums of what they read or wrote",
            ours.sum,
            theirs.sum
        );
        let one = f64::from(subject.calls()) * subject.unit().1;
        #[expect(clippy::cast_precision_loss, reason = "less than a day in nanoseconds")]
        let each = |nanos: u64| nanos as f64 / one;
        Ok(Round { ours: each(ours.nanos), theirs: each(theirs.nanos) })
    }

    /// Empties the table that is written to, which is no part of what is measured.
    async fn make_room(&self, subject: Subject) -> Result<()> {
        match subject {
            Subject::ExecuteMany10k => self.native.run(self.statements.make_room).await,
            _ => Ok(()),
        }
    }

    fn args_of(&self, subject: Subject) -> Value {
        let Statements { one, all, insert, million, .. } = self.statements;
        let calls = subject.calls();
        match subject {
            Subject::QueryOne | Subject::QueryOneAsleep => {
                json!({ "sql": one, "calls": calls, "keys": TEN_THOUSAND })
            }
            Subject::Query10k => {
                json!({ "sql": all, "calls": calls, "instants": self.engine == Engine::Postgres })
            }
            Subject::ExecuteMany10k => json!({ "sql": insert, "rows": TEN_THOUSAND }),
            Subject::Cursor1m => json!({ "sql": million, "batch": BATCH }),
        }
    }
}

fn handler_of(subject: Subject) -> &'static str {
    match subject {
        Subject::QueryOne | Subject::QueryOneAsleep => "query-one",
        Subject::Query10k => "query-all",
        Subject::ExecuteMany10k => "execute-many",
        Subject::Cursor1m => "cursor",
    }
}
