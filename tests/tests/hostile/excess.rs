//! Too much of everything: each is stopped at its bound, is told so, and the plugin, the host and
//! the database go on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use innkeeper::config::GrantConfig;
use innkeeper::interfaces::db::{Ended, Error, ErrorKind, Session};
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{PATIENCE, until};
use innkeeper_tests::on_both_engines;
use innkeeper_tests::plugins::{Plugin, Plugins, options, show};

/// How long a statement of these plugins may run.
const STATEMENT: Duration = Duration::from_millis(400);

/// Far more than any bound takes to be kept, and far less than the statements would run.
const PROMPT: Duration = Duration::from_secs(30);

/// What an error may be.
type Kinds = &'static [ErrorKind];

const TIME: Kinds = &[ErrorKind::Timeout];
const SIZE: Kinds = &[ErrorKind::LimitExceeded];
/// The database itself may know a bound of its own.
const SIZE_OR_REFUSED: Kinds = &[ErrorKind::LimitExceeded, ErrorKind::Statement, ErrorKind::Timeout];

on_both_engines! {
    async fn endless_and_huge_statements_are_stopped_at_their_bounds(engine: Engine) {
        let plugins = Plugins::new(engine, 2).await;
        let mut outside = plugins.outside().await;
        let url = plugins.login().await;
        let patient = plugins.plugin("patient", GrantConfig { url: url.clone(), ..GrantConfig::default() });
        let short = GrantConfig { url, statement_timeout: Some(STATEMENT), ..GrantConfig::default() };
        let limited = plugins.plugin("hostile", short);
        let good = plugins.plugin_with_login("good").await;
        let own = "create table t (x text)";
        patient.session().execute(own.into(), vec![]).await.expect("it may");
        for (sql, kinds) in statements(engine) {
            let session = if kinds == SIZE { patient.session() } else { limited.session() };
            let started = Instant::now();
            check(&sql, session.query(sql.clone(), vec![]).await, kinds);
            check(&sql, session.execute(sql.clone(), vec![]).await, if kinds == SIZE { SIZE_OR_DONE } else { kinds });
            let id = session.begin(options(false)).await.unwrap_or_else(|error| panic!("{error:?} after {sql}"));
            session.execute_in(id, "insert into t values ('x')".into(), vec![]).await.expect("it may");
            check(&sql, session.query_in(id, sql.clone(), vec![]).await, kinds);
            // A statement that was cut off while it ran has failed its transaction.
            let commit = session.commit(id).await;
            assert!(commit.is_err(), "{sql}");
            assert!(started.elapsed() < PROMPT, "{sql} took {:?}", started.elapsed());
            let rows = session.query("select count(*) from t".into(), vec![]).await;
            assert_eq!(show(&rows.unwrap_or_else(|error| panic!("{error:?} after {sql}"))), [["0"]], "{sql}");
            good.session().query("select 1".into(), vec![]).await.expect("the good plugin is not hurt");
            assert_eq!(session.end().await, Ended::default(), "{sql}");
            plugins.assert_clean(&mut outside, &sql).await;
        }
    }

    async fn who_opens_too_much_is_told_the_number_and_can_go_on(engine: Engine) {
        let plugins = Plugins::new(engine, 8).await;
        let mut outside = plugins.outside().await;
        let grant = GrantConfig { max_open_transactions: 3, max_open_cursors: 5, ..GrantConfig::default() };
        let hostile = plugins.plugin("hostile", grant);
        let session = hostile.session();
        let mut open = Vec::new();
        for number in 0..3_000 {
            match session.begin(options(true)).await {
                Ok(id) => open.push(id),
                Err(error) => {
                    assert_eq!((error.kind, number >= 3), (ErrorKind::LimitExceeded, true), "{error:?}");
                    assert!(error.message.contains('3'), "{error:?}");
                }
            }
        }
        assert_eq!(open.len(), 3);
        let rows = format!("select n from ({}) as r", numbers(engine, Some(100)));
        let mut cursors = 0;
        for _ in 0..3_000 {
            match session.open_cursor(open[0], rows.clone(), vec![]).await {
                Ok(_) => cursors += 1,
                Err(error) => assert_eq!(error.kind, ErrorKind::LimitExceeded, "{error:?}"),
            }
        }
        assert_eq!(cursors, 5);
        // None of that has failed anything.
        for id in open {
            session.query_in(id, "select 1".into(), vec![]).await.expect("it can go on");
            session.commit(id).await.expect("it can go on");
        }
        session.begin(options(true)).await.expect("there is room again");
        assert_eq!(session.end().await, Ended { rolled_back: 1, unconfirmed: 0 });
        plugins.assert_clean(&mut outside, "too many of them").await;
    }

    async fn a_million_rows_are_refused_at_once_and_pass_through_a_cursor(engine: Engine) {
        let plugins = Plugins::new(engine, 2).await;
        let mut outside = plugins.outside().await;
        let hostile = plugins.plugin("hostile", GrantConfig { max_rows: 10_000, ..GrantConfig::default() });
        let session = hostile.session();
        let million = format!("select n from ({}) as r", numbers(engine, Some(1_000_000)));
        let refused = session.query(million.clone(), vec![]).await.expect_err("it is too much");
        assert_eq!(refused.kind, ErrorKind::LimitExceeded, "{refused:?}");
        assert!(refused.message.contains("10000") || refused.message.contains("10,000"), "{refused:?}");
        let id = session.begin(options(true)).await.expect("it can go on");
        let (cursor, _) = session.open_cursor(id, million, vec![]).await.expect("it can be opened");
        let mut seen = 0;
        loop {
            let rows = session.fetch(id, cursor, u32::MAX).await.expect("it goes on to its end");
            assert!(rows.len() <= 10_000, "{} rows at once", rows.len());
            if rows.is_empty() {
                break;
            }
            seen += rows.len();
        }
        assert_eq!(seen, 1_000_000);
        session.commit(id).await.expect("it can go on");
        plugins.assert_clean(&mut outside, "a million rows").await;
    }

    async fn a_cursor_without_an_end_ends_with_its_execution(engine: Engine) {
        let plugins = Plugins::new(engine, 2).await;
        let mut outside = plugins.outside().await;
        let hostile = plugins.plugin_with_login("hostile").await;
        let session = hostile.session();
        let id = session.begin(options(true)).await.expect("a transaction");
        let endless = match engine {
            // Generated in a loop: `generate_series` makes all of its rows at first.
            Engine::Postgres => "with recursive n(n) as (select 1::bigint union all select n + 1 from n) select n from n".to_owned(),
            Engine::Sqlite => numbers(engine, None),
        };
        let (cursor, _) = session.open_cursor(id, endless, vec![]).await.expect("it can be opened");
        for _ in 0..50 {
            assert!(!session.fetch(id, cursor, 1_000).await.expect("it goes on").is_empty());
        }
        // In the middle of a fetch, too.
        let fetching = {
            let session = Arc::clone(&session);
            tokio::spawn(async move { while session.fetch(id, cursor, 1_000).await.is_ok() {} })
        };
        tokio::task::yield_now().await;
        let started = Instant::now();
        assert_eq!(session.end().await.unconfirmed, 0);
        assert!(started.elapsed() < Duration::from_secs(5), "the end took {:?}", started.elapsed());
        fetching.await.expect("it ends");
        plugins.assert_clean(&mut outside, "an endless cursor").await;
    }

    async fn nobody_can_use_a_transaction_of_somebody_else(engine: Engine) {
        let plugins = Plugins::new(engine, 4).await;
        let mut outside = plugins.outside().await;
        outside.execute("create table t (x text)").await;
        let (victim, hostile) = (plugins.plugin_with_login("good").await, plugins.plugin_with_login("hostile").await);
        if engine == Engine::Postgres {
            outside.execute("grant all on t to public").await;
        }
        let victims = victim.session();
        let id = victims.begin(options(false)).await.expect("a transaction");
        victims.execute_in(id, "insert into t values ('good')".into(), vec![]).await.expect("it may");
        // Of the same plugin, and of another one.
        for plugin in [&victim, &hostile] {
            let session = plugin.session();
            for number in (0..50).chain([id, id + 1, u64::MAX]) {
                let answers = [
                    session.execute_in(number, "delete from t".into(), vec![]).await.map(drop),
                    session.savepoint(number).await.map(drop),
                    session.rollback_to(number, 1).await,
                    session.open_cursor(number, "select 1".into(), vec![]).await.map(drop),
                    session.fetch(number, 1, 1).await.map(drop),
                    session.commit(number).await,
                    session.rollback(number).await,
                ];
                for answer in answers {
                    assert_eq!(answer.expect_err("it is not its own").kind, ErrorKind::Closed);
                }
                session.close_cursor(number, 1).await;
            }
            assert_eq!(session.end().await, Ended::default());
        }
        victims.commit(id).await.expect("nobody has touched it");
        assert_eq!(outside.texts("select x from t").await, ["good"]);
        plugins.assert_clean(&mut outside, "a thief").await;
    }

    async fn whoever_loses_to_another_writer_is_told_that_it_is_a_conflict(engine: Engine) {
        let plugins = Plugins::new(engine, 4).await;
        let mut outside = plugins.outside().await;
        outside.execute("create table t (id integer primary key, n integer); insert into t values (1, 0), (2, 0)").await;
        let (one, two) = (plugins.plugin("one", GrantConfig::default()), plugins.plugin("two", GrantConfig::default()));
        let good = plugins.plugin("good", GrantConfig::default());
        let work = async |plugin: &Plugin, first: i64, second: i64, both: &tokio::sync::Barrier| {
            // Less than SQLite's writers wait for each other.
            let session = plugin.session_with_time(Duration::from_secs(4));
            let done = async {
                let id = session.begin(options(false)).await;
                if engine == Engine::Sqlite {
                    both.wait().await;
                }
                let id = id?;
                let update = |id: i64| format!("update t set n = n + 1 where id = {id}");
                session.execute_in(id, update(first), vec![]).await?;
                if engine == Engine::Postgres {
                    both.wait().await;
                }
                session.execute_in(id, update(second), vec![]).await?;
                session.commit(id).await
            };
            let done: Result<(), Error> = done.await;
            session.end().await;
            done
        };
        // On PostgreSQL a deadlock. On SQLite the second one cannot even begin while the first
        // waits for it.
        let both = tokio::sync::Barrier::new(2);
        let (first, second) = tokio::join!(work(&one, 1, 2, &both), work(&two, 2, 1, &both));
        let lost = [&first, &second].into_iter().filter_map(|done| done.as_ref().err()).collect::<Vec<_>>();
        assert_eq!(lost.len(), 1, "{first:?}, {second:?}");
        let kinds = if engine == Engine::Postgres { [ErrorKind::Conflict; 2] } else { [ErrorKind::Conflict, ErrorKind::Busy] };
        assert!(kinds.contains(&lost[0].kind), "{lost:?}");
        let rows = good.session().query("select n from t order by id".into(), vec![]).await.expect("it is not hurt");
        assert_eq!(show(&rows), [["1"], ["1"]], "one has committed both, the other none");
        plugins.assert_clean(&mut outside, "a deadlock").await;
    }
}

const SIZE_OR_DONE: Kinds = &[ErrorKind::LimitExceeded, ErrorKind::Closed];

/// `execute` brings no rows: where [`SIZE_OR_DONE`] is expected it may also succeed.
fn check<T>(sql: &str, answer: Result<T, Error>, kinds: Kinds) {
    match answer {
        Ok(_) => assert_eq!(kinds, SIZE_OR_DONE, "{sql} was answered ok"),
        Err(error) => assert!(kinds.contains(&error.kind), "{sql}: {error:?}"),
    }
}

/// A query of the numbers from 1 on, as column `n`.
fn numbers(engine: Engine, most: Option<u32>) -> String {
    match (engine, most) {
        (Engine::Postgres, most) => {
            format!("select n::bigint as n from generate_series(1, {}) as n", most.unwrap_or(2_000_000_000))
        }
        (Engine::Sqlite, most) => {
            let limit = most.map(|most| format!(" limit {most}")).unwrap_or_default();
            format!("with recursive n(n) as (select 1 union all select n + 1 from n{limit}) select n from n")
        }
    }
}

/// Statements that would never end, or that would make the host keep too much.
fn statements(engine: Engine) -> Vec<(String, Kinds)> {
    let statements: &[(&str, Kinds)] = match engine {
        Engine::Postgres => &[
            ("select pg_sleep(600)", TIME),
            ("select count(*) from generate_series(1, 100000000000)", TIME),
            ("with recursive n(i) as (select 1 union all select 1 from n) select count(*) from n", TIME),
            ("do $$ begin loop perform 1; end loop; end $$", TIME),
            (CATCHER, &[ErrorKind::Timeout, ErrorKind::Connection]),
            (CATCHER_WITHOUT_PAUSE, &[ErrorKind::Timeout, ErrorKind::Connection]),
            ("select repeat('x', 1073741823 + 1)", SIZE_OR_REFUSED),
            ("select repeat('x', 100000000)", SIZE),
            ("select repeat('x', 20000000) from generate_series(1, 100)", SIZE),
            ("select repeat('x', 1000000) from generate_series(1, 100)", SIZE),
            ("select g from generate_series(1, 1000000) g", SIZE),
            ("select array_agg(g) from generate_series(1, 5000000) g", SIZE_OR_REFUSED),
        ],
        Engine::Sqlite => &[
            ("with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n", TIME),
            (
                "insert into t with recursive n(i) as (select 1 union all select 1 from n) select 'x' from n where i > 1",
                TIME,
            ),
            ("select replace(hex(zeroblob(200000000)), '0', '0000')", SIZE),
            ("select zeroblob(2000000000)", SIZE_OR_REFUSED),
            ("select randomblob(900000000)", SIZE_OR_REFUSED),
            ("select zeroblob(100000000)", SIZE),
            (
                "with recursive n(i) as (select 1 union all select i + 1 from n limit 100) select zeroblob(1000000 + i) from n",
                SIZE,
            ),
            (
                "with recursive n(i) as (select 1 union all select i + 1 from n limit 1000000) select i from n",
                SIZE,
            ),
            (
                "with recursive n(i) as (select 1 union all select i + 1 from n) select group_concat(zeroblob(100000)) from n",
                SIZE_OR_REFUSED,
            ),
            // Sorted in temporary files, of which there would be no end.
            (
                "with recursive n(i) as (select 1 union all select i + 1 from n) select randomblob(10000) from n order by 1",
                SIZE_OR_REFUSED,
            ),
        ],
    };
    statements.iter().map(|(sql, kinds)| ((*sql).to_owned(), *kinds)).collect()
}

const CATCHER: &str = "do $$ begin loop begin perform pg_sleep(600); \
                       exception when query_canceled then null; end; end loop; end $$";

const CATCHER_WITHOUT_PAUSE: &str = "do $$ begin loop begin loop perform 1; end loop; \
                                     exception when query_canceled then null; end; end loop; end $$";

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_sqlite_grows_to_its_bound_and_no_further() {
    let most = 4 << 20;
    let plugins = Plugins::with_max_size(Engine::Sqlite, 2, Some(most)).await;
    let mut outside = plugins.outside().await;
    let hostile = plugins.plugin("hostile", GrantConfig::default());
    let session = hostile.session();
    session.execute("create table t (x blob)".into(), vec![]).await.expect("there is room");
    let fill = "insert into t with recursive n(i) as (select 1 union all select i + 1 from n) \
                select randomblob(100000) from n";
    let filling = tokio::time::timeout(PATIENCE, session.execute(fill.into(), vec![])).await;
    let error = filling.expect("it ends").expect_err("there is an end");
    assert!(error.hint.as_ref().is_some_and(|hint| hint.contains("max_size")), "{error:?}");
    let id = session.begin(options(false)).await.expect("it can go on");
    session.execute_in(id, "insert into t values (x'00')".into(), vec![]).await.expect("there is room");
    session.execute_in(id, fill.into(), vec![]).await.expect_err("there is an end");
    session.execute_in(id, "insert into t values (x'01')".into(), vec![]).await.expect_err("it has failed");
    session.commit(id).await.expect_err("it has failed");
    session.execute("insert into t values (x'02')".into(), vec![]).await.expect("there is room");
    let pages = "select page_count * page_size from pragma_page_count, pragma_page_size";
    assert!(outside.count(pages).await <= i64::from(most as u32), "the file is larger than it may be");
    assert_eq!(outside.count("select count(*) from t").await, 1);
    plugins.assert_clean(&mut outside, "a full file").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_postgres_that_never_ends_is_ended_with_its_execution() {
    let plugins = Plugins::new(Engine::Postgres, 2).await;
    let mut outside = plugins.outside().await;
    let hostile = plugins.plugin_with_login("hostile").await;
    for sql in [
        "create table t (x integer)",
        "create function wait() returns trigger language plpgsql as $$ begin \
         loop begin perform pg_sleep(600); exception when query_canceled then null; end; end loop; end $$",
        "create constraint trigger wait after insert on t deferrable initially deferred \
         for each row execute function wait()",
    ] {
        hostile.session().execute(sql.into(), vec![]).await.expect("it may");
    }
    for own in [true, false] {
        let session = hostile.session();
        let committing = {
            let session: Arc<Session> = Arc::clone(&session);
            tokio::spawn(async move {
                let insert = "insert into t values (1)".to_owned();
                if own {
                    return session.execute(insert, vec![]).await.map(drop);
                }
                let id = session.begin(options(false)).await?;
                session.execute_in(id, insert, vec![]).await?;
                session.commit(id).await
            })
        };
        let sleeping = "select count(*) from pg_stat_activity where datname = current_database() \
                        and wait_event = 'PgSleep'";
        until("the commit is under way", async || (outside.count(sleeping).await == 1).then_some(())).await;
        let started = Instant::now();
        session.end().await;
        assert!(started.elapsed() < Duration::from_secs(6), "the end took {:?}", started.elapsed());
        committing.await.expect("it ends").expect_err("nothing was committed");
        plugins.assert_clean(&mut outside, "an endless commit").await;
        let rows = hostile.session().query("select count(*) from t".into(), vec![]).await;
        assert_eq!(show(&rows.expect("the next call works")), [["0"]]);
    }
}
