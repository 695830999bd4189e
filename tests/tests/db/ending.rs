//! The end of an execution, whatever it was doing.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use innkeeper::database_url::DatabaseUrl;
use innkeeper::interfaces::db::{Ended, ErrorKind, Session};

use crate::database::{Engine, until};
use crate::{Scene, assert_kind, on_both_engines, options, show_rows};

on_both_engines!(
    the_end_rolls_back_what_is_open_and_keeps_what_is_committed,
    the_end_stops_a_statement_in_its_own_transaction,
    the_end_stops_a_statement_in_a_transaction,
    the_end_stops_a_statement_whose_caller_is_gone,
    the_end_wakes_who_waits_for_a_connection,
    the_end_wakes_who_waits_for_a_lock,
    the_end_of_one_execution_leaves_another_alone,
    after_the_end_every_call_answers_closed,
    the_end_may_come_again,
    a_caller_can_vanish_at_any_moment,
    a_session_that_is_forgotten_leaves_nothing_running,
);

/// Well below the five seconds that the end may take at most, far above what it takes.
const PROMPT: Duration = Duration::from_secs(10);

async fn end_promptly(session: &Session) -> Ended {
    let started = Instant::now();
    let ended = session.end().await;
    assert!(started.elapsed() < PROMPT, "the end took {:?}", started.elapsed());
    ended
}

/// A statement that fills `t`, for ever or up to a number of rows.
fn filling(note: &str, rows: Option<u32>) -> String {
    let limit = rows.map(|rows| format!("LIMIT {rows}")).unwrap_or_default();
    format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n {limit}) INSERT INTO t SELECT i, {note} FROM n"
    )
}

/// How much of an open transaction SQLite has written to disk.
fn spilled(scene: &Scene) -> u64 {
    let DatabaseUrl::Sqlite(path) = scene.outside.url() else { panic!("it is SQLite") };
    std::fs::metadata(path.with_extension("db-wal")).map_or(0, |log| log.len())
}

async fn the_end_rolls_back_what_is_open_and_keeps_what_is_committed(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    session.execute("INSERT INTO t VALUES (1, 'kept')".into(), vec![]).await.unwrap();
    let id = session.begin(options()).await.unwrap();
    session.execute_in(id, "INSERT INTO t VALUES (2, 'lost')".into(), vec![]).await.unwrap();
    assert_eq!(end_promptly(&session).await, Ended { rolled_back: 1, unconfirmed: 0 });
    assert_eq!(scene.rows().await, 1);
    scene.assert_clean().await;
    assert_eq!(scene.database().connections().idle, 1, "a sound connection was not kept");
}

async fn the_end_stops_a_statement_in_its_own_transaction(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    let endless = scene.endless();
    let running = {
        let session = Arc::clone(&session);
        tokio::spawn(async move { session.query(endless, vec![]).await })
    };
    scene.until_endless_runs().await;
    let ended = end_promptly(&session).await;
    assert_eq!(ended.unconfirmed, 0);
    assert_kind(running.await.unwrap(), ErrorKind::Closed);
    scene.assert_clean().await;
    // A reader on SQLite cannot be seen from outside: it may not have begun. What is stopped
    // while it writes is seen below.
    if engine == Engine::Postgres {
        assert_eq!(ended.rolled_back, 1);
        assert_eq!(scene.database().connections().idle, 0, "a stopped connection was kept");
    }
    scene.session().query("SELECT 1".into(), vec![]).await.unwrap();
}

async fn the_end_stops_a_statement_in_a_transaction(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    let id = session.begin(options()).await.unwrap();
    session.execute_in(id, "INSERT INTO t VALUES (-1, 'lost')".into(), vec![]).await.unwrap();
    let endless = match engine {
        Engine::Postgres => scene.endless(),
        Engine::Sqlite => filling("hex(randomblob(500))", None),
    };
    let running = {
        let session = Arc::clone(&session);
        tokio::spawn(async move { session.query_in(id, endless, vec![]).await })
    };
    match engine {
        Engine::Postgres => scene.until_endless_runs().await,
        Engine::Sqlite => until("it writes to disk", async || spilled(&scene) > 2_000_000).await,
    }
    assert_eq!(end_promptly(&session).await, Ended { rolled_back: 1, unconfirmed: 0 });
    assert_kind(running.await.unwrap(), ErrorKind::Closed);
    assert_eq!(scene.rows().await, 0);
    scene.assert_clean().await;
}

async fn the_end_stops_a_statement_whose_caller_is_gone(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    let id = session.begin(options()).await.unwrap();
    session.execute_in(id, "INSERT INTO t VALUES (1, 'lost')".into(), vec![]).await.unwrap();
    {
        let mut in_transaction = pin!(session.query_in(id, scene.endless(), vec![]));
        let mut alone = pin!(session.query(scene.endless(), vec![]));
        tokio::select! {
            _ = &mut in_transaction => panic!("the statement is endless"),
            _ = &mut alone => panic!("the statement is endless"),
            () = async {
                until("both run", async || scene.database().connections().in_use == 2).await;
                scene.until_endless_runs().await;
            } => {}
        }
    }
    let ended = end_promptly(&session).await;
    assert_eq!(ended.unconfirmed, 0);
    assert!((1..=2).contains(&ended.rolled_back), "{ended:?}");
    assert_eq!(scene.rows().await, 0);
    scene.assert_clean().await;
}

async fn the_end_wakes_who_waits_for_a_connection(engine: Engine) {
    let scene = Scene::with(engine, 1, Duration::from_secs(60)).await;
    let (holder, waiter) = (scene.session(), scene.session_of("other"));
    let id = holder.begin(options()).await.unwrap();
    let waiting = {
        let waiter = Arc::clone(&waiter);
        tokio::spawn(async move { waiter.query("SELECT 1".into(), vec![]).await })
    };
    tokio::task::yield_now().await;
    assert_eq!(end_promptly(&waiter).await, Ended { rolled_back: 0, unconfirmed: 0 });
    assert_kind(waiting.await.unwrap(), ErrorKind::Closed);
    holder.commit(id).await.unwrap();
    scene.assert_clean().await;
}

async fn the_end_wakes_who_waits_for_a_lock(engine: Engine) {
    let scene = Scene::with(engine, 4, Duration::from_secs(60)).await;
    scene.outside.run("INSERT INTO t VALUES (1, 'a')").await;
    let (holder, waiter) = (scene.session(), scene.session_of("other"));
    let id = holder.begin(options()).await.unwrap();
    holder.execute_in(id, "UPDATE t SET note = 'b'".into(), vec![]).await.unwrap();
    let waiting = {
        let waiter = Arc::clone(&waiter);
        tokio::spawn(async move { waiter.execute("UPDATE t SET note = 'c'".into(), vec![]).await })
    };
    until("it waits", async || scene.database().connections().in_use == 2).await;
    if engine == Engine::Postgres {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                       AND wait_event_type = 'Lock'";
        until("it waits for the lock", async || scene.outside.number(waiting).await == 1).await;
    }
    let ended = end_promptly(&waiter).await;
    assert_eq!(ended.unconfirmed, 0);
    assert_kind(waiting.await.unwrap(), ErrorKind::Closed);
    holder.commit(id).await.unwrap();
    assert_eq!(scene.outside.number("SELECT count(*) FROM t WHERE note = 'b'").await, 1);
    scene.assert_clean().await;
}

async fn the_end_of_one_execution_leaves_another_alone(engine: Engine) {
    let scene = Scene::new(engine).await;
    let (good, ended) = (scene.session(), scene.session());
    let id = good.begin(options()).await.unwrap();
    good.execute_in(id, "INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap();
    let endless = scene.endless();
    let running = {
        let ended = Arc::clone(&ended);
        tokio::spawn(async move { ended.query(endless, vec![]).await })
    };
    until("both have a connection", async || scene.database().connections().in_use == 2).await;
    end_promptly(&ended).await;
    running.await.unwrap().unwrap_err();
    good.execute_in(id, "INSERT INTO t VALUES (2, 'b')".into(), vec![]).await.unwrap();
    good.commit(id).await.unwrap();
    assert_eq!(scene.rows().await, 2);
}

async fn after_the_end_every_call_answers_closed(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    let id = session.begin(options()).await.unwrap();
    end_promptly(&session).await;
    assert_kind(session.query("SELECT 1".into(), vec![]).await, ErrorKind::Closed);
    assert_kind(session.execute("DELETE FROM t".into(), vec![]).await, ErrorKind::Closed);
    assert_kind(session.begin(options()).await, ErrorKind::Closed);
    assert_kind(session.query_in(id, "SELECT 1".into(), vec![]).await, ErrorKind::Closed);
    assert_kind(session.execute_in(id, "SELECT 1".into(), vec![]).await, ErrorKind::Closed);
    assert_kind(session.commit(id).await, ErrorKind::Closed);
    assert_kind(session.rollback(id).await, ErrorKind::Closed);
}

async fn the_end_may_come_again(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    session.begin(options()).await.unwrap();
    let (one, two) = tokio::join!(session.end(), session.end());
    assert_eq!(one, Ended { rolled_back: 1, unconfirmed: 0 });
    assert_eq!(two, one);
    assert_eq!(session.end().await, one);
    let unused = scene.session();
    assert_eq!(unused.end().await, Ended::default());
}

/// Everything that a guest does, dropped after it has been polled `polls` times. True where it
/// came to its end.
async fn polled(polls: usize, work: impl Future<Output = ()>) -> bool {
    let mut work = pin!(work);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        work.as_mut().poll(context).map(|()| true)
    })
    .await
}

async fn a_caller_can_vanish_at_any_moment(engine: Engine) {
    let scene = Scene::with(engine, 2, Duration::from_secs(10)).await;
    let mut finished = false;
    let mut polls = 1;
    while !finished {
        let session = scene.session_of(if polls % 2 == 0 { "even" } else { "odd" });
        scene.outside.run("DELETE FROM t").await;
        finished = polled(polls, async {
            let kept = session.begin(options()).await.unwrap();
            session.execute_in(kept, "INSERT INTO t VALUES (1, 'a')".into(), vec![]).await.unwrap();
            session.commit(kept).await.unwrap();
            let lost = session.begin(options()).await.unwrap();
            session.execute_in(lost, "INSERT INTO t VALUES (2, 'b')".into(), vec![]).await.unwrap();
            session.query("SELECT * FROM t".into(), vec![]).await.unwrap();
            session.rollback(lost).await.unwrap();
            session.execute("INSERT INTO t VALUES (3, 'c')".into(), vec![]).await.unwrap();
        })
        .await;
        let ended = end_promptly(&session).await;
        assert_eq!(ended.unconfirmed, 0, "after {polls} polls");
        assert_eq!(scene.database().connections().in_use, 0, "after {polls} polls");
        // 1 comes before 3, and 2 never.
        let wrong =
            "SELECT count(*) FROM t WHERE id = 2 OR (id = 3 AND NOT EXISTS (SELECT 1 FROM t WHERE id = 1))";
        assert_eq!(scene.outside.number(wrong).await, 0, "after {polls} polls");
        polls += 1;
    }
    assert!(polls > 5, "the work was never dropped half-way");
    assert_eq!(scene.rows().await, 2);
    scene.assert_clean().await;
}

async fn a_session_that_is_forgotten_leaves_nothing_running(engine: Engine) {
    let scene = Scene::new(engine).await;
    let session = scene.session();
    let id = session.begin(options()).await.unwrap();
    session.execute_in(id, "INSERT INTO t VALUES (1, 'lost')".into(), vec![]).await.unwrap();
    let endless = scene.endless();
    tokio::select! {
        _ = session.query(endless, vec![]) => panic!("the statement is endless"),
        () = until("both run", async || scene.database().connections().in_use == 2) => {}
    }
    drop(session);
    until("all is over", async || scene.database().connections().in_use == 0).await;
    assert_eq!(scene.rows().await, 0);
    scene.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_backend_that_ignores_the_cancel_request_is_terminated() {
    let scene = Scene::new(Engine::Postgres).await;
    let session = scene.session();
    let stubborn = "DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(600); \
                    EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$";
    let running = {
        let session = Arc::clone(&session);
        tokio::spawn(async move { session.execute(stubborn.into(), vec![]).await })
    };
    scene.until_endless_runs().await;
    assert_eq!(end_promptly(&session).await, Ended { rolled_back: 1, unconfirmed: 0 });
    assert_kind(running.await.unwrap(), ErrorKind::Closed);
    scene.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_of_sqlite_that_cannot_be_interrupted_is_abandoned_in_time() {
    let scene = Scene::new(Engine::Sqlite).await;
    let session = scene.session();
    // One step of its virtual machine that takes many seconds, after others that can be seen.
    let search = "instr(zeroblob(1000000 + i), CAST(zeroblob(500000) || x'01' AS BLOB))";
    let note = format!("CASE WHEN i = 9000 THEN {search} ELSE hex(randomblob(500)) END");
    let id = session.begin(options()).await.unwrap();
    let running = {
        let session = Arc::clone(&session);
        tokio::spawn(async move { session.execute_in(id, filling(&note, Some(9_000)), vec![]).await })
    };
    let mut lengths = Vec::new();
    until("the write-ahead log has grown and stopped growing", async || {
        lengths.push(spilled(&scene));
        lengths.iter().rev().take(20).all(|length| *length > 1_000_000 && length == lengths.last().unwrap())
            && lengths.len() > 20
    })
    .await;
    let started = Instant::now();
    assert_eq!(session.end().await, Ended { rolled_back: 0, unconfirmed: 1 });
    assert!(started.elapsed() < Duration::from_secs(5), "the end took {:?}", started.elapsed());
    assert_kind(running.await.unwrap(), ErrorKind::Closed);
    assert_eq!(scene.database().connections().in_use, 0);
    let seen = scene.session().query("SELECT count(*) FROM t".into(), vec![]).await.unwrap();
    assert_eq!(show_rows(&seen), [["Value::Integer(0)"]]);
}
