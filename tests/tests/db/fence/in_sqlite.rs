//! The fence in a file: one writer, and a table that plugins cannot change.

use innkeeper::config::GrantConfig;
use innkeeper::interfaces::db::ErrorKind;

use super::{Fenced, INSERT};
use crate::database::Engine;
use crate::{assert_kind, options};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raising_waits_for_the_writer() {
    let fenced = Fenced::new(Engine::Sqlite).await;
    let late = fenced.attempt(7);
    let id = late.begin(options()).await.unwrap();
    late.execute_in(id, INSERT.into(), vec![]).await.unwrap();
    let (grants, execution) = (fenced.grants.clone(), fenced.execution);
    let raising = tokio::spawn(async move { grants.raise_fences(execution, 8).await });
    // It was committed before the fence was raised, and so before the later attempt.
    late.commit(id).await.unwrap();
    raising.await.unwrap().unwrap();
    assert_kind(late.begin(options()).await, ErrorKind::Closed);
    assert_eq!(fenced.scene.rows().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_that_cannot_be_raised_in_time_says_who_has_the_file() {
    let scene = crate::Scene::with(Engine::Sqlite, 4, std::time::Duration::from_millis(50)).await;
    let fenced = Fenced::with(scene, super::fence()).await;
    let late = fenced.attempt(7);
    let id = late.begin(options()).await.unwrap();
    let error = fenced.grants.raise_fences(fenced.execution, 8).await.unwrap_err();
    assert!(error.contains("the fence in database `app` cannot be raised"), "{error}");
    assert!(error.contains("job j, lease 7"), "{error}");
    late.rollback(id).await.unwrap();
    fenced.raise(8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_cannot_change_the_fence_by_whatever_statement() {
    let fenced = Fenced::new(Engine::Sqlite).await;
    let plugin = fenced.attempt(8);
    for made_yet in [false, true] {
        if made_yet {
            fenced.raise(8).await;
        }
        let statements = [
            "CREATE TABLE innkeeper_fence (x)",
            "CREATE TEMP TABLE Innkeeper_Fence (x)",
            "CREATE VIEW innkeeper_fence AS SELECT 1",
            "CREATE VIRTUAL TABLE innkeeper_fence USING fts5 (x)",
            "INSERT INTO innkeeper_fence VALUES ('a', 1, 1)",
            "REPLACE INTO main.\"innkeeper_fence\" VALUES ('a', 1, 1)",
            "UPDATE innkeeper_fence SET lease = 0",
            "DELETE FROM INNKEEPER_FENCE",
            "WITH x AS (SELECT 1) DELETE FROM innkeeper_fence",
            "DROP TABLE innkeeper_fence",
            "ALTER TABLE innkeeper_fence RENAME TO other",
            "ALTER TABLE innkeeper_fence ADD COLUMN x",
            "CREATE INDEX i ON innkeeper_fence (lease)",
            "CREATE TRIGGER g AFTER INSERT ON innkeeper_fence BEGIN SELECT 1; END",
            "CREATE TEMP TRIGGER g AFTER INSERT ON main.innkeeper_fence BEGIN SELECT 1; END",
        ];
        for statement in statements {
            let error = plugin.execute(statement.into(), vec![]).await.expect_err(statement);
            let kinds = [ErrorKind::Denied, ErrorKind::Statement];
            assert!(kinds.contains(&error.kind), "{statement}: {error:?}");
        }
    }
    // Nor by a trigger on a table of its own.
    plugin
        .execute(
            "CREATE TRIGGER g AFTER INSERT ON t BEGIN UPDATE innkeeper_fence SET lease = 0; END".into(),
            vec![],
        )
        .await
        .unwrap();
    let error = assert_kind(super::insert(&plugin).await, ErrorKind::Denied);
    assert!(error.message.contains("the table `innkeeper_fence` is the host's"), "{}", error.message);
    assert_kind(super::insert(&fenced.attempt(7)).await, ErrorKind::Closed);
    assert_eq!(fenced.fences().await, 1);
    let grants = crate::grants::grants(&fenced.scene, "other", GrantConfig::default());
    let error = crate::grants::execution(&grants).execute("DELETE FROM innkeeper_fence".into(), vec![]).await;
    assert_kind(error, ErrorKind::Denied);
}
