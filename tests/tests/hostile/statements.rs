//! Every attack of the list, one after the other, with a look at everything after each.

use std::sync::Arc;

use innkeeper::interfaces::db::{Error, Session, Value};
use innkeeper_tests::database::Engine;
use innkeeper_tests::on_both_engines;
use innkeeper_tests::plugins::{Plugin, Plugins, options, show};
use innkeeper_tests::raw::Raw;

use crate::attacks::{self, Attack};
use crate::ground;

on_both_engines! {
    async fn no_statement_ends_escapes_or_outlives_its_transaction(engine: Engine) {
        let mut field = Field::new(engine).await;
        let mut wrong = Vec::new();
        for attack in attacks::all(engine) {
            if let Err(why) = field.try_attack(&attack).await {
                wrong.push(format!("{attack:?}: {why}"));
            }
        }
        assert!(wrong.is_empty(), "{} attacks:\n{}", wrong.len(), wrong.join("\n"));
    }

    async fn no_disguise_gets_transaction_control_past_the_host(engine: Engine) {
        let mut field = Field::new(engine).await;
        let mut wrong = Vec::new();
        for attack in attacks::hidden() {
            let answers = field.say(&attack.sql).await;
            if let Some(why) = unfit(&attack, &answers) {
                wrong.push(format!("{:?}: {why}", attack.sql));
            }
        }
        if let Err(why) = field.look().await {
            wrong.push(why);
        }
        assert!(wrong.is_empty(), "{} attacks:\n{}", wrong.len(), wrong.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_interferes_with_prepared_statements_reaches_only_its_own_connections() {
    let mut field = Field::new(Engine::Postgres).await;
    for attack in attacks::POSTGRES_PREPARED {
        for _ in 0..2 {
            let session = field.hostile.session();
            let look = "select count(*), 7 from marks";
            let _may_meet_the_last_attack = session.query(look.into(), vec![]).await;
            let _whatever = session.execute((*attack).to_owned(), vec![]).await;
            field.work().await.unwrap_or_else(|error| panic!("{error:?} after {attack}"));
            if let Ok(rows) = session.query(look.into(), vec![]).await {
                assert_eq!(show(&rows), [["0", "7"]], "after {attack}");
            }
            // Each connection that was spoilt is found out by the first statement that meets it.
            let mut refused = 0;
            while let Err(error) = session.query("select 40 + 2".into(), vec![]).await {
                refused += 1;
                assert!(refused < 4, "{error:?} after {attack}");
            }
            session.end().await;
            field.plugins.assert_clean(&mut field.outside, attack).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_cannot_put_its_statements_in_the_place_of_those_of_later_executions() {
    let field = Field::new(Engine::Postgres).await;
    let look = "select count(*), 7 from marks";
    for _ in 0..2 {
        let session = field.hostile.session();
        session.query(look.into(), vec![]).await.expect("it is kept prepared from here on");
        let _whatever = session.query("select swap_statements()".into(), vec![]).await;
        session.end().await;
        // Being told to run again would do.
        if let Ok(rows) = field.hostile.session().query(look.into(), vec![]).await {
            assert_eq!(show(&rows), [["0", "7"]], "it answers what the function has put there");
        }
    }
}

/// A hostile plugin and a good one on one database.
struct Field {
    plugins: Plugins,
    hostile: Plugin,
    good: Plugin,
    outside: Raw,
    /// What [`attacks::look`] sees in a session of the hostile plugin before all attacks.
    before: Vec<String>,
    jobs: i64,
}

/// What a statement was answered on its own (`execute`, `query`) and within transactions, and
/// the commit of the first of these.
struct Answers {
    statements: Vec<Result<(), Error>>,
    commit: Result<(), Error>,
    /// The marks that its transactions have left.
    marks: i64,
    /// Rollbacks that the database has not confirmed.
    unconfirmed: usize,
}

impl Field {
    async fn new(engine: Engine) -> Self {
        let plugins = Plugins::new(engine, 4).await;
        let mut outside = plugins.outside().await;
        ground::prepare(&mut outside).await;
        let hostile = plugins.plugin_with_login("hostile").await;
        for statement in ground::own_statements(engine) {
            hostile.session().execute((*statement).to_owned(), vec![]).await.expect("it prepares itself");
        }
        let good = plugins.plugin_with_login("good").await;
        good.session().execute("create table work (n integer)".into(), vec![]).await.expect("it may");
        let before = seen(&hostile.session(), engine).await;
        Self { plugins, hostile, good, outside, before, jobs: 0 }
    }

    async fn try_attack(&mut self, attack: &Attack) -> Result<(), String> {
        let answers = self.say(&attack.sql).await;
        let unfit = unfit(attack, &answers);
        // An attack that makes something of its own must find nothing when it comes again.
        for cleanup in ["drop table if exists y", "delete from late where x > 2"] {
            let _may_not_be_there = self.hostile.session().execute(cleanup.into(), vec![]).await;
        }
        self.look().await?;
        unfit.map_or(Ok(()), Err)
    }

    /// Says it in every place where a statement can be said.
    async fn say(&mut self, sql: &str) -> Answers {
        let session = self.hostile.session();
        let own = session.execute(sql.to_owned(), vec![]).await.map(drop);
        let own_query = session.query(sql.to_owned(), vec![]).await.map(drop);
        self.outside.execute("delete from marks").await;
        let id = begin(&session).await;
        mark(&session, id, 1).await.expect("the first statement of a transaction");
        let executed = session.execute_in(id, sql.to_owned(), vec![]).await.map(drop);
        let _may_be_refused = mark(&session, id, 2).await;
        let commit = session.commit(id).await;

        let id = begin(&session).await;
        mark(&session, id, 3).await.expect("the first statement of a transaction");
        let queried = session.query_in(id, sql.to_owned(), vec![]).await.map(drop);
        let _may_be_over = session.rollback(id).await;
        let unconfirmed = session.end().await.unconfirmed;
        let marks = self.outside.count("select count(*) from marks").await;
        Answers { statements: vec![own, own_query, executed, queried], commit, marks, unconfirmed }
    }

    /// The database is clean, the hostile plugin's own sessions are as before, and the good
    /// plugin does its work.
    async fn look(&mut self) -> Result<(), String> {
        self.plugins.assert_clean(&mut self.outside, "the attack").await;
        let session = self.hostile.session();
        // As many sessions as there can be connections.
        for _ in 0..2 {
            let after = seen(&session, self.plugins.engine).await;
            if after != self.before {
                return Err(format!("it left {after:?}, and before it was {:?}", self.before));
            }
        }
        self.work().await.map_err(|error| format!("the good plugin is hurt: {error:?}"))
    }

    async fn work(&mut self) -> Result<(), Error> {
        let session = self.good.session();
        self.jobs += 1;
        let id = session.begin(options(false)).await?;
        let insert = "insert into work values ($1)";
        session.execute_in(id, insert.into(), vec![Value::Integer(self.jobs)]).await?;
        session.commit(id).await?;
        let rows = session.query("select count(*), max(n) from work".into(), vec![]).await?;
        assert_eq!(show(&rows), [[self.jobs.to_string(), self.jobs.to_string()]]);
        Ok(())
    }
}

async fn begin(session: &Arc<Session>) -> u64 {
    session.begin(options(false)).await.expect("a transaction can be begun")
}

async fn mark(session: &Session, id: u64, part: i64) -> Result<u64, Error> {
    let insert = "insert into marks (attack, part) values (0, $1)";
    session.execute_in(id, insert.into(), vec![Value::Integer(part)]).await
}

async fn seen(session: &Session, engine: Engine) -> Vec<String> {
    let mut seen = Vec::new();
    for query in attacks::look(engine) {
        let rows = session.query(query, vec![]).await;
        seen.push(rows.map_or_else(|error| format!("{error:?}"), |rows| format!("{:?}", show(&rows))));
    }
    seen
}

/// What is wrong with the answers.
fn unfit(attack: &Attack, answers: &Answers) -> Option<String> {
    if let Some(kinds) = attack.expect.kinds() {
        for answer in &answers.statements {
            match answer {
                Err(error) if kinds.contains(&error.kind) => {}
                other => return Some(format!("it was answered {other:?}")),
            }
        }
        if answers.commit.is_ok() {
            return Some("its transaction was committed after the refusal".to_owned());
        }
        // A login may end its own server process, and then there is nobody to confirm anything.
        if answers.unconfirmed > 0 {
            return Some("a rollback is not confirmed".to_owned());
        }
    }
    let expected = if answers.commit.is_ok() { 2 } else { 0 };
    (answers.marks != expected).then(|| {
        format!("{} marks are left, and the commit was answered {:?}", answers.marks, answers.commit)
    })
}
