//! The fence in a PostgreSQL database: passed with the commit, by a function that is not the
//! plugin's.

use std::sync::Arc;
use std::time::Duration;

use innkeeper::config::{DatabaseConfig, GrantConfig};
use innkeeper::database_url::DatabaseUrl;
use innkeeper::interfaces::db::{BeginOptions, ErrorKind, Isolation, Session};
use innkeeper_tests::login::Login;
use sqlx::Connection as _;

use super::{Fenced, INSERT, fence, insert, transact};
use crate::database::{Engine, TestDatabase, until};
use crate::{Scene, assert_kind, options};

const LEVELS: [Option<Isolation>; 4] =
    [None, Some(Isolation::ReadCommitted), Some(Isolation::RepeatableRead), Some(Isolation::Serializable)];

fn at_level(isolation: Option<Isolation>) -> BeginOptions {
    BeginOptions { isolation, ..options() }
}

/// Begins, takes a snapshot and changes a row.
async fn half(session: &Session, isolation: Option<Isolation>) -> u64 {
    let id = session.begin(at_level(isolation)).await.unwrap();
    session.query_in(id, "SELECT count(*) FROM t".into(), vec![]).await.unwrap();
    session.execute_in(id, INSERT.into(), vec![]).await.unwrap();
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_raised_between_a_statement_and_its_commit_refuses_it_at_every_isolation_level() {
    for isolation in LEVELS {
        let fenced = Fenced::new(Engine::Postgres).await;
        for (lease, raised_before) in [(7, false), (8, true)] {
            // By SQL, since the host also ends what the earlier attempt has open.
            let late = fenced.attempt(lease);
            let id = half(&late, isolation).await;
            raise_by_sql(&fenced, lease + 1).await;
            let error = late.commit(id).await.unwrap_err();
            let kinds = [ErrorKind::Closed, ErrorKind::Conflict];
            assert!(kinds.contains(&error.kind), "{isolation:?}, raised before: {raised_before}: {error:?}");
            assert_eq!(fenced.scene.rows().await, 0, "{isolation:?}");
            assert_kind(insert(&late).await, ErrorKind::Closed);
            fenced.scene.assert_clean().await;
        }
        transact(&fenced.attempt(9)).await.unwrap();
        assert_eq!(fenced.scene.rows().await, 1);
    }
}

async fn raise_by_sql(fenced: &Fenced, lease: i64) {
    let raise = format!("SELECT innkeeper_fence.raise('{}', {lease})", fenced.execution);
    fenced.scene.outside.run(&raise).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raising_ends_what_an_earlier_attempt_has_left_open_and_the_next_one_does_not_wait() {
    let fenced = Fenced::new(Engine::Postgres).await;
    fenced.scene.outside.run("INSERT INTO t VALUES (0, 'before')").await;
    let change = "UPDATE t SET note = 'x' WHERE id = 0";
    let (late, retry) = (fenced.attempt(7), fenced.attempt(8));
    let neighbour = fenced.attempt_of(uuid::Uuid::now_v7(), 1);
    let of_neighbour = half(&neighbour, None).await;
    let id = late.begin(options()).await.unwrap();
    late.execute_in(id, change.into(), vec![]).await.unwrap();
    fenced.raise(8).await;
    retry.execute(change.into(), vec![]).await.unwrap();
    // Whoever raises it too late ends nothing of a later attempt.
    let of_retry = half(&retry, None).await;
    fenced.raise(7).await;
    retry.commit(of_retry).await.unwrap();
    late.commit(id).await.unwrap_err();
    neighbour.commit(of_neighbour).await.unwrap();
    assert_eq!(fenced.scene.rows().await, 3);
    fenced.scene.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_of_one_attempt_never_conflict_at_the_fence() {
    for isolation in LEVELS {
        let fenced = Fenced::new(Engine::Postgres).await;
        for lease in [7, 8] {
            if lease == 8 {
                fenced.raise(lease).await;
            }
            // The first one's snapshot is older than what the others do at the fence.
            let attempt = fenced.attempt(lease);
            let id = attempt.begin(at_level(isolation)).await.unwrap();
            attempt.query_in(id, "SELECT 1".into(), vec![]).await.unwrap();
            attempt.execute_in(id, "CREATE TABLE IF NOT EXISTS other (x int)".into(), vec![]).await.unwrap();
            insert(&attempt).await.unwrap();
            transact(&attempt).await.unwrap();
            attempt.commit(id).await.unwrap_or_else(|error| panic!("{isolation:?}, {lease}: {error:?}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serializable_transactions_of_different_executions_never_conflict_at_the_fence() {
    let fenced = Fenced::new(Engine::Postgres).await;
    // Rows far apart, so that only the fence could bring them together.
    for plugin_table in ["a", "b"] {
        fenced.scene.outside.run(&format!("CREATE TABLE {plugin_table} (x int)")).await;
    }
    for _ in 0..5 {
        let (one, two) =
            (fenced.attempt_of(uuid::Uuid::now_v7(), 1), fenced.attempt_of(uuid::Uuid::now_v7(), 2));
        let mut open = Vec::new();
        for (session, table) in [(&one, "a"), (&two, "b")] {
            let id = session.begin(at_level(Some(Isolation::Serializable))).await.unwrap();
            session.query_in(id, format!("SELECT count(*) FROM {table}"), vec![]).await.unwrap();
            session.execute_in(id, format!("INSERT INTO {table} VALUES (1)"), vec![]).await.unwrap();
            open.push((session, id));
        }
        for (session, id) in open {
            session.commit(id).await.unwrap();
        }
    }
}

/// A commit that waits for the lock 1, as one waits for a standby.
async fn make_commits_wait(scene: &Scene) {
    scene
        .outside
        .run(
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END $$; \
             CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW EXECUTE FUNCTION wait()",
        )
        .await;
}

async fn waiting(scene: &Scene, application: &str) -> bool {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
         AND application_name = '{application}' AND wait_event_type = 'Lock'"
    );
    scene.outside.number(&sql).await > 0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raising_waits_for_a_commit_that_has_passed() {
    let fenced = Fenced::new(Engine::Postgres).await;
    make_commits_wait(&fenced.scene).await;
    let DatabaseUrl::Postgres(url) = fenced.scene.outside.url() else { unreachable!("it is PostgreSQL") };
    let mut lock = sqlx::PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("SELECT pg_advisory_lock(1)").execute(&mut lock).await.unwrap();

    let late = fenced.attempt(7);
    let committing = tokio::spawn(async move { transact(&late).await });
    let name = format!("innkeeper plugin {}", fenced.execution);
    until("the commit waits", async || waiting(&fenced.scene, &name).await).await;
    let (grants, execution) = (fenced.grants.clone(), fenced.execution);
    let raising = tokio::spawn(async move { grants.raise_fences(execution, 8).await });
    until("raising waits", async || waiting(&fenced.scene, "innkeeper fence").await).await;
    sqlx::raw_sql("SELECT pg_advisory_unlock(1)").execute(&mut lock).await.unwrap();

    committing.await.unwrap().unwrap();
    raising.await.unwrap().unwrap();
    assert_eq!(fenced.scene.rows().await, 1, "it was committed before the later attempt began");
    assert_kind(insert(&fenced.attempt(7)).await, ErrorKind::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_with_a_login_of_its_own_is_fenced_and_cannot_lower_the_fence() {
    let login = Login::new().await;
    let scene = Scene::new(Engine::Postgres).await;
    let url = Some(login.at(&scene.outside.url()));
    let fenced = Fenced::with(scene, GrantConfig { url, ..fence() }).await;
    let rights = format!("GRANT ALL ON t, t_id_seq TO {}", login.name());
    fenced.scene.outside.run(&rights).await;
    let (late, retry) = (fenced.attempt(7), fenced.attempt(8));
    insert(&late).await.unwrap();
    fenced.raise(8).await;
    for statement in [
        "UPDATE innkeeper_fence.fence SET lease = 0".to_owned(),
        "DELETE FROM innkeeper_fence.fence".to_owned(),
        "SELECT * FROM innkeeper_fence.fence FOR UPDATE".to_owned(),
        "TRUNCATE innkeeper_fence.fence".to_owned(),
        "LOCK TABLE innkeeper_fence.fence".to_owned(),
        "CREATE OR REPLACE FUNCTION innkeeper_fence.pass(uuid, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true'"
            .to_owned(),
        "DROP FUNCTION innkeeper_fence.pass(uuid, bigint)".to_owned(),
        "DROP SCHEMA innkeeper_fence CASCADE".to_owned(),
    ] {
        let error = retry.execute(statement.clone(), vec![]).await.expect_err(&statement);
        assert_eq!(error.kind, ErrorKind::Denied, "{statement}: {error:?}");
    }
    // Raising it to less lowers nothing.
    let lower = format!("SELECT innkeeper_fence.raise('{}', 1)", fenced.execution);
    retry.query(lower, vec![]).await.unwrap();
    assert_kind(insert(&late).await, ErrorKind::Closed);
    insert(&retry).await.unwrap();
    assert_eq!(fenced.scene.rows().await, 2);
    fenced.scene.databases.close().await;
    fenced.scene.outside.run(&format!("DROP OWNED BY {}", login.name())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_a_role_of_the_plugins_own_do_not_get_in_the_way_of_the_fence() {
    let scene = Scene::new(Engine::Postgres).await;
    scene
        .outside
        .run(
            "CREATE SCHEMA own; CREATE FUNCTION own.le(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true'; \
             CREATE OPERATOR own.<= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = own.le); \
             CREATE TABLE own.fence (execution uuid, lease bigint); GRANT ALL ON SCHEMA own TO pg_monitor",
        )
        .await;
    let grant = GrantConfig { role: Some("pg_monitor".into()), schema: Some("own".into()), ..fence() };
    let fenced = Fenced::with(scene, grant).await;
    fenced
        .scene
        .outside
        .run("GRANT ALL ON t, t_id_seq TO pg_monitor; GRANT USAGE ON SCHEMA public TO pg_monitor")
        .await;
    fenced.raise(8).await;
    for (lease, may) in [(7, false), (8, true)] {
        let session = fenced.attempt(lease);
        let id = session.begin(options()).await.unwrap();
        let change = "SELECT set_config('search_path', 'own, pg_catalog', true)";
        session.query_in(id, change.into(), vec![]).await.unwrap();
        session.execute_in(id, "INSERT INTO public.t (note) VALUES ('x')".into(), vec![]).await.unwrap();
        assert_eq!(session.commit(id).await.is_ok(), may, "lease {lease}");
    }
    assert_eq!(fenced.scene.rows().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_make_the_fence_at_once_are_not_in_each_others_way() {
    let scene = Scene::with(Engine::Postgres, 8, Duration::from_secs(10)).await;
    let fenced = Arc::new(Fenced::with(scene, fence()).await);
    let mut hosts = tokio::task::JoinSet::new();
    for lease in 1..=8 {
        let session = fenced.attempt_of(uuid::Uuid::now_v7(), lease);
        hosts.spawn(async move { insert(&session).await.unwrap() });
    }
    assert_eq!(hosts.join_all().await.into_iter().sum::<u64>(), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_that_is_lost_is_made_again_by_whoever_raises_it() {
    let fenced = Fenced::new(Engine::Postgres).await;
    fenced.raise(1).await;
    fenced.scene.outside.run("DROP SCHEMA innkeeper_fence CASCADE").await;
    fenced.raise(8).await;
    assert_kind(insert(&fenced.attempt(7)).await, ErrorKind::Closed);
    insert(&fenced.attempt(8)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_fence_that_its_login_could_make_nothing_runs() {
    let login = Login::new().await;
    let outside = TestDatabase::empty(Engine::Postgres).await;
    let url = DatabaseUrl::Postgres(login.at(&outside.url()));
    let config =
        DatabaseConfig { url, max_connections: 4, acquire_timeout: Duration::from_secs(10), max_size: None };
    let fenced = Fenced::with(Scene::at(Engine::Postgres, outside, config).await, fence()).await;
    let session = fenced.attempt(1);
    let error = assert_kind(insert(&session).await, ErrorKind::Connection);
    assert!(error.message.contains("database `app` cannot be opened"), "{}", error.message);
    let error = fenced.grants.raise_fences(fenced.execution, 2).await.unwrap_err();
    assert!(error.contains("run the statements of docs/db.md"), "{error}");
    fenced.scene.databases.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raised_fences_are_forgotten_when_no_transaction_can_be_as_old() {
    let fenced = Fenced::new(Engine::Postgres).await;
    fenced.raise(1).await;
    let kept = fenced.attempt_of(uuid::Uuid::now_v7(), 5);
    fenced
        .scene
        .outside
        .run(
            "INSERT INTO innkeeper_fence.fence SELECT gen_random_uuid(), 1, now() - interval '32 days' \
             FROM generate_series(1, 150); \
             INSERT INTO innkeeper_fence.fence VALUES (gen_random_uuid(), 1, now() - interval '30 days')",
        )
        .await;
    fenced.raise(2).await;
    assert_eq!(fenced.fences().await, 52, "a hundred at a time");
    fenced.raise(3).await;
    assert_eq!(fenced.fences().await, 2);
    insert(&kept).await.unwrap();
}

#[test]
fn the_documentation_has_the_statements_that_make_the_fence() {
    let (root, marker) =
        (concat!(env!("CARGO_MANIFEST_DIR"), "/.."), "CREATE SCHEMA IF NOT EXISTS innkeeper_fence;");
    let made = std::fs::read_to_string(format!("{root}/host/src/interfaces/db/postgres/fence.sql")).unwrap();
    let docs = std::fs::read_to_string(format!("{root}/docs/db.md")).unwrap();
    let statements = made.find(marker).map(|at| made[at..].trim()).unwrap();
    assert!(docs.contains(statements), "docs/db.md has other statements than postgres/fence.sql");
}
