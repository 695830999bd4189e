//! Late commits: by the host's own clock, and by the fence in the plugin's database.

mod in_postgres;
mod in_sqlite;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use innkeeper::config::GrantConfig;
use innkeeper::interfaces::db::fence::{CommitGuard, Holder};
use innkeeper::interfaces::db::{ErrorKind, Grants, Session};
use uuid::Uuid;

use crate::database::Engine;
use crate::grants::grants;
use crate::{Scene, TIME, assert_kind, on_both_engines, options, show_rows};

on_both_engines!(
    after_the_host_session_has_expired_nothing_is_committed,
    an_attempt_commits_at_its_own_fence_and_leaves_nothing_in_it,
    after_a_later_attempt_has_raised_the_fence_an_earlier_one_commits_nothing,
    a_fence_stops_its_own_execution_only,
    what_only_reads_passes_a_raised_fence,
    without_a_fence_in_the_grant_none_is_looked_at,
);

const INSERT: &str = "INSERT INTO t (note) VALUES ('x')";

/// A host that believes in its session as long as the test says so.
struct Belief(AtomicBool);

impl CommitGuard for Belief {
    fn may_commit(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// One execution of a plugin with a fence.
struct Fenced {
    scene: Scene,
    grants: Arc<Grants>,
    execution: Uuid,
    belief: Arc<Belief>,
}

impl Fenced {
    async fn new(engine: Engine) -> Self {
        Self::with(Scene::new(engine).await, fence()).await
    }

    async fn with(scene: Scene, grant: GrantConfig) -> Self {
        if scene.engine == Engine::Postgres {
            scene.outside.run("DROP TABLE t; CREATE TABLE t (id serial PRIMARY KEY, note text)").await;
        }
        let grants = grants(&scene, "good", grant);
        let belief = Arc::new(Belief(AtomicBool::new(true)));
        Self { scene, grants, execution: Uuid::now_v7(), belief }
    }

    /// The session of the attempt with this lease.
    fn attempt(&self, lease: i64) -> Arc<Session> {
        self.attempt_of(self.execution, lease)
    }

    fn attempt_of(&self, execution: Uuid, lease: i64) -> Arc<Session> {
        let holder = Holder { execution, lease, guard: self.belief.clone() };
        Session::of_attempt(self.grants.clone(), format!("job j, lease {lease}"), holder, TIME)
    }

    async fn raise(&self, lease: i64) {
        self.grants.raise_fences(self.execution, lease).await.unwrap();
    }

    /// The rows of the fence, and those of executions that have one for good.
    async fn fences(&self) -> i64 {
        let table = match self.scene.engine {
            Engine::Sqlite => "innkeeper_fence",
            Engine::Postgres => "innkeeper_fence.fence",
        };
        self.scene.outside.number(&format!("SELECT count(*) FROM {table}")).await
    }
}

fn fence() -> GrantConfig {
    GrantConfig { fence: true, ..GrantConfig::default() }
}

async fn insert(session: &Session) -> Result<u64, innkeeper::interfaces::db::Error> {
    session.execute(INSERT.into(), vec![]).await
}

/// A whole transaction, as far as it comes.
async fn transact(session: &Session) -> Result<(), innkeeper::interfaces::db::Error> {
    let id = session.begin(options()).await?;
    session.execute_in(id, INSERT.into(), vec![]).await?;
    session.commit(id).await
}

async fn after_the_host_session_has_expired_nothing_is_committed(engine: Engine) {
    let fenced = Fenced::with(Scene::new(engine).await, GrantConfig::default()).await;
    let session = fenced.attempt(1);
    let id = session.begin(options()).await.unwrap();
    session.execute_in(id, INSERT.into(), vec![]).await.unwrap();
    fenced.belief.0.store(false, Ordering::SeqCst);
    let error = assert_kind(session.commit(id).await, ErrorKind::Closed);
    assert!(error.message.contains("could not renew its session in the store in time"), "{}", error.message);
    assert_kind(insert(&session).await, ErrorKind::Closed);
    assert_kind(session.query(format!("{INSERT} RETURNING id"), vec![]).await, ErrorKind::Closed);
    assert_kind(session.execute_many(INSERT.into(), vec![vec![], vec![]]).await, ErrorKind::Closed);
    assert_eq!(fenced.scene.rows().await, 0);
    fenced.scene.assert_clean().await;
    fenced.belief.0.store(true, Ordering::SeqCst);
    insert(&session).await.unwrap();
    assert_eq!(fenced.scene.rows().await, 1, "it was the guard that had refused the others");
}

async fn an_attempt_commits_at_its_own_fence_and_leaves_nothing_in_it(engine: Engine) {
    let fenced = Fenced::new(engine).await;
    for (lease, fences) in [(7, 0), (9, 1)] {
        if fences > 0 {
            fenced.raise(lease).await;
        }
        let session = fenced.attempt(lease);
        insert(&session).await.unwrap();
        transact(&session).await.unwrap();
        if engine == Engine::Postgres || fences > 0 {
            assert_eq!(fenced.fences().await, fences, "lease {lease}");
        }
    }
    assert_eq!(fenced.scene.rows().await, 4);
    fenced.scene.assert_clean().await;
}

async fn after_a_later_attempt_has_raised_the_fence_an_earlier_one_commits_nothing(engine: Engine) {
    let fenced = Fenced::new(engine).await;
    let (late, retry) = (fenced.attempt(7), fenced.attempt(8));
    insert(&late).await.unwrap();
    fenced.raise(8).await;
    let error = assert_kind(insert(&late).await, ErrorKind::Closed);
    assert!(error.message.contains("a later attempt of this execution"), "{}", error.message);
    assert_kind(transact(&late).await, ErrorKind::Closed);
    assert_eq!(fenced.scene.rows().await, 1);
    transact(&retry).await.unwrap();
    // Whoever is late with raising it lowers nothing.
    fenced.raise(7).await;
    assert_kind(insert(&late).await, ErrorKind::Closed);
    insert(&retry).await.unwrap();
    assert_eq!(fenced.scene.rows().await, 3);
    assert_eq!(fenced.fences().await, 1);
    fenced.scene.assert_clean().await;
}

async fn a_fence_stops_its_own_execution_only(engine: Engine) {
    let fenced = Fenced::new(engine).await;
    fenced.raise(1_000).await;
    transact(&fenced.attempt_of(Uuid::now_v7(), 1)).await.unwrap();
    assert_eq!(fenced.scene.rows().await, 1);
}

async fn what_only_reads_passes_a_raised_fence(engine: Engine) {
    let fenced = Fenced::new(engine).await;
    fenced.raise(8).await;
    let late = fenced.attempt(7);
    let read = "SELECT count(*) FROM t".to_owned();
    let rows = late.query(read.clone(), vec![]).await.unwrap();
    assert_eq!(show_rows(&rows), [["Value::Integer(0)"]]);
    let reading = innkeeper::interfaces::db::BeginOptions { read_only: true, ..options() };
    let id = late.begin(reading).await.unwrap();
    late.query_in(id, read, vec![]).await.unwrap();
    late.commit(id).await.unwrap();
}

async fn without_a_fence_in_the_grant_none_is_looked_at(engine: Engine) {
    let fenced = Fenced::new(engine).await;
    fenced.raise(8).await;
    let grants = grants(&fenced.scene, "good", GrantConfig::default());
    let unfenced = Fenced { grants, ..fenced };
    transact(&unfenced.attempt(7)).await.unwrap();
    unfenced.raise(9).await;
    assert_eq!(unfenced.scene.rows().await, 1);
}
