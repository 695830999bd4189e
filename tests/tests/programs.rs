//! Random programs of calls into `db` against a model: whatever a plugin calls, in whatever
//! order, in several transactions at once, it sees what the contract says, and what is there in
//! the end is what was committed.
//!
//! Each transaction has keys of its own, and SQLite, which has one writer at a time, one that
//! writes: nothing ever waits for anything. `PROPTEST_CASES` sets how many programs.

#[path = "programs/model.rs"]
mod model;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use innkeeper::config::GrantConfig;
use innkeeper::interfaces::db::{BeginOptions, Ended, Error, ErrorKind, Isolation, RowSet, Session, Value};
use innkeeper_tests::database::Engine;
use innkeeper_tests::on_both_engines;
use innkeeper_tests::plugins::{Plugin, Plugins};
use innkeeper_tests::raw::Raw;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};

use model::{Act, Model, NUMBERS, Op, Table, program};

on_both_engines! {
    async fn any_program_of_calls_does_what_the_contract_says(engine: Engine) {
        let plugins = Plugins::new(engine, 6).await;
        let mut outside = plugins.outside().await;
        outside.execute("create table kv (key bigint primary key, value bigint check (value >= 0))").await;
        outside.execute("create table numbers (n bigint primary key)").await;
        for n in 1..=NUMBERS {
            outside.execute(&format!("insert into numbers values ({n})")).await;
        }
        let outside = RefCell::new(outside);
        let plugin = plugins.plugin("good", GrantConfig { max_open_cursors: 1_000, ..GrantConfig::default() });
        let runtime = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| {
            let mut runner = TestRunner::new(Config { failure_persistence: None, ..config() });
            let result = runner.run(&program(), |ops| {
                runtime.block_on(check(&plugins, &plugin, &mut outside.borrow_mut(), &ops))
            });
            if let Err(failure) = result {
                panic!("{failure}");
            }
        });
    }
}

/// 150 programs unless `PROPTEST_CASES` says otherwise.
fn config() -> Config {
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { Config::default().cases } else { 150 };
    Config { cases, max_shrink_iters: 2_000, ..Config::default() }
}

/// Runs one program in a session of its own.
async fn check(plugins: &Plugins, plugin: &Plugin, outside: &mut Raw, ops: &[Op]) -> TestCaseResult {
    outside.execute("delete from kv").await;
    let session = plugin.session();
    let mut run = Run { model: Model::new(plugins.engine), session: &session, given: BTreeSet::new() };
    let mut result = Ok(());
    for (number, op) in ops.iter().enumerate() {
        result = run.step(op).await.map_err(|error| format!("step {number}, {op:?}: {error}"));
        if result.is_err() {
            break;
        }
    }
    let open = run.model.open();
    let committed = run.model.committed;
    // Before anything else, for the sake of the next program.
    let ended = session.end().await;
    result.map_err(TestCaseError::fail)?;
    prop_assert_eq!(ended, Ended { rolled_back: open, unconfirmed: 0 });
    prop_assert_eq!(plugins.database().connections().in_use, 0);
    let rows = outside.texts("select key || '=' || value from kv order by key").await;
    let expected: Vec<_> = committed.iter().map(|(key, value)| format!("{key}={value}")).collect();
    prop_assert_eq!(rows, expected);
    Ok(())
}

/// A program on its way.
struct Run<'a> {
    model: Model,
    session: &'a Arc<Session>,
    /// Numbers of transactions and cursors, which are never given twice.
    given: BTreeSet<u64>,
}

/// What a call answered, as far as a model can know it.
#[derive(Debug, PartialEq)]
enum Seen {
    Rows(Table),
    Changed(u64),
    Done,
}

impl Run<'_> {
    async fn step(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::Begin { slot, repeatable, read_only } => self.begin(*slot, *repeatable, *read_only).await,
            Op::Own(act) => {
                let Some(expected) = self.model.own(act) else { return Ok(()) };
                compare(perform(self.session, None, model::OWN, act).await, expected)
            }
            Op::In(slot, act) => {
                let Some(expected) = self.model.act(*slot, act) else { return Ok(()) };
                let id = self.model.id(*slot);
                compare(perform(self.session, id, *slot, act).await, expected)
            }
            Op::Savepoint(slot) => self.savepoint(*slot).await,
            Op::RollbackTo(slot, pick) => {
                let Some(id) = self.model.id(*slot) else { return Ok(()) };
                let number = self.model.pick_savepoint(*slot, *pick);
                let expected = self.model.rollback_to(*slot, number);
                compare(self.session.rollback_to(id, number).await.map(|()| Seen::Done), expected)
            }
            Op::Release(slot, pick) => {
                let Some(id) = self.model.id(*slot) else { return Ok(()) };
                let number = self.model.pick_savepoint(*slot, *pick);
                let expected = self.model.release(*slot, number);
                compare(self.session.release(id, number).await.map(|()| Seen::Done), expected)
            }
            Op::OpenCursor(slot) => self.open_cursor(*slot).await,
            Op::Fetch(slot, pick, limit) => self.fetch(*slot, *pick, *limit).await,
            Op::CloseCursor(slot, pick) => {
                if let Some((id, number)) = self.model.pick_cursor(*slot, *pick) {
                    self.model.close_cursor(*slot, number);
                    self.session.close_cursor(id, number).await;
                }
                Ok(())
            }
            Op::Commit(slot) => {
                let Some(id) = self.model.id(*slot) else { return Ok(()) };
                let expected = self.model.commit(*slot);
                compare(self.session.commit(id).await.map(|()| Seen::Done), expected)
            }
            Op::Rollback(slot) => {
                let Some(id) = self.model.id(*slot) else { return Ok(()) };
                let expected = self.model.rollback(*slot);
                compare(self.session.rollback(id).await.map(|()| Seen::Done), expected)
            }
        }
    }

    async fn begin(&mut self, slot: usize, repeatable: bool, read_only: bool) -> Result<(), String> {
        if !self.model.may_begin(slot, read_only) {
            return Ok(());
        }
        let isolation = repeatable.then_some(Isolation::RepeatableRead);
        let options = BeginOptions { database: None, isolation, read_only };
        let id = self.session.begin(options).await.map_err(|error| format!("{error:?}"))?;
        if !self.given.insert(id) {
            return Err(format!("the number {id} is given a second time"));
        }
        // A snapshot is taken by the first statement.
        self.model.begin(slot, id, repeatable, read_only);
        compare(
            perform(self.session, Some(id), slot, &Act::Read).await,
            self.model.act(slot, &Act::Read).expect("it reads"),
        )
    }

    async fn savepoint(&mut self, slot: usize) -> Result<(), String> {
        let Some(id) = self.model.id(slot) else { return Ok(()) };
        match (self.session.savepoint(id).await, self.model.may_go_on(slot)) {
            (Ok(number), Ok(())) => self.model.savepoint(slot, number),
            (answer, expected) => compare(answer.map(|_| Seen::Done), expected.map(|()| Seen::Done)),
        }
    }

    async fn open_cursor(&mut self, slot: usize) -> Result<(), String> {
        let Some(id) = self.model.id(slot) else { return Ok(()) };
        let sql = "select n from numbers where n > $1 order by n".to_owned();
        let opened = self.session.open_cursor(id, sql, vec![Value::Integer(0)]).await;
        match (opened, self.model.may_go_on(slot)) {
            (Ok((number, columns)), Ok(())) => {
                if columns.len() != 1 || columns[0].name != "n" {
                    return Err(format!("the columns are {columns:?}"));
                }
                if !self.given.insert(number) {
                    return Err(format!("the number {number} is given a second time"));
                }
                self.model.open_cursor(slot, number);
                Ok(())
            }
            (answer, expected) => compare(answer.map(|_| Seen::Done), expected.map(|()| Seen::Done)),
        }
    }

    async fn fetch(&mut self, slot: usize, pick: usize, limit: u32) -> Result<(), String> {
        let Some((id, number)) = self.model.pick_cursor(slot, pick) else { return Ok(()) };
        match (self.session.fetch(id, number, limit).await, self.model.next_rows(slot, number)) {
            (Ok(rows), Ok(rest)) => {
                let rows: Vec<i64> = rows.iter().map(|row| integer(&row[0])).collect::<Result<_, _>>()?;
                let fits = rows.len() <= limit as usize && rest.starts_with(&rows);
                if !fits || rows.is_empty() != rest.is_empty() {
                    return Err(format!("it fetched {rows:?}, where {rest:?} are left"));
                }
                self.model.fetched(slot, number, rows.len());
                Ok(())
            }
            (answer, expected) => compare(answer.map(|_| Seen::Done), expected.map(|_| Seen::Done)),
        }
    }
}

/// Does it in the transaction `id`, or in one of its own.
async fn perform(session: &Session, id: Option<u64>, slot: usize, act: &Act) -> Result<Seen, Error> {
    let (sql, mut params) = act.statement(slot);
    if matches!(act, Act::Read | Act::Missing | Act::Refused) {
        let params = params.pop().unwrap_or_default();
        let rows = match id {
            Some(id) => session.query_in(id, sql, params).await,
            None => session.query(sql, params).await,
        };
        return rows.map(|rows| Seen::Rows(table(&rows)));
    }
    let changed = match (id, act) {
        (Some(id), Act::Many(_)) => session.execute_many_in(id, sql, params).await,
        (None, Act::Many(_)) => session.execute_many(sql, params).await,
        (Some(id), _) => session.execute_in(id, sql, params.pop().unwrap_or_default()).await,
        (None, _) => session.execute(sql, params.pop().unwrap_or_default()).await,
    };
    changed.map(Seen::Changed)
}

fn compare(seen: Result<Seen, Error>, expected: Result<Seen, &'static [ErrorKind]>) -> Result<(), String> {
    match (seen, expected) {
        (Ok(seen), Ok(expected)) if seen == expected => Ok(()),
        (Err(error), Err(kinds)) if kinds.contains(&error.kind) => Ok(()),
        (seen, expected) => Err(format!("it answered {seen:?}, not {expected:?}")),
    }
}

fn table(rows: &RowSet) -> Table {
    let number = |value: &Value| integer(value).unwrap_or(i64::MIN);
    rows.rows.iter().map(|row| (number(&row[0]), number(&row[1]))).collect::<BTreeMap<_, _>>()
}

fn integer(value: &Value) -> Result<i64, String> {
    match value {
        Value::Integer(integer) => Ok(*integer),
        other => Err(format!("{other:?} is no integer")),
    }
}
