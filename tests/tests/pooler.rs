//! Hosts whose store is behind a connection pooler in transaction mode.

use innkeeper::execution::State;
use innkeeper::store::{Pooler, Store, StoreOptions};
use innkeeper_tests::database::Engine;
use innkeeper_tests::host::{Scene, TestHost};
use innkeeper_tests::pgbouncer::Pgbouncer;
use innkeeper_tests::raw::Raw;
use serde_json::json;

const JOBS: &str = r#"
[jobs.echo]
plugin = "probe"
handler = "echo"

[jobs.flaky]
plugin = "probe"
handler = "fail-until"
args = { attempt = 2 }
retry = { max_attempts = 3, initial = "10ms", maximum = "10ms" }

[jobs.tick]
plugin = "probe"
handler = "echo"
schedule = { every = "500ms" }
"#;

/// What a host says of its pooler.
const ADVICE: &str = "write `pooler = \"transaction\"` in [store]";

/// Writes the configuration of a host whose store is behind the pooler.
fn configure(scene: &Scene, pooler: &Pgbouncer, host: &str) -> std::path::PathBuf {
    let path = scene.configure(host, JOBS);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace(&scene.store.address(), &pooler.url(scene.store.url()))).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_that_share_two_sessions_with_everybody_lose_nothing() {
    let scene = Scene::new(Engine::Postgres).await;
    let scene = scene.with("store", "max_connections = 4\npooler = \"transaction\"");
    let pooler = Pgbouncer::start(scene.store.url(), "").await;
    let mut hosts = Vec::new();
    for name in ["inn-1", "inn-2"] {
        let host = TestHost::start(&configure(&scene, &pooler, name));
        host.wait_for_log("serving").await;
        hosts.push(host);
    }
    let options = StoreOptions { max_connections: 4, pooler: Pooler::Transaction, ..StoreOptions::default() };
    let url = innkeeper::database_url::DatabaseUrl::Postgres(pooler.url(scene.store.url()));
    let store = Store::connect(&url, &options).await.unwrap();
    let mut executions = Vec::new();
    for number in 0..100 {
        executions.push((json!(number), scene.enqueue(&store, "echo", &json!(number)).await));
        executions.push((json!(2), scene.enqueue(&store, "flaky", &json!({"attempt": 2})).await));
    }
    // The command line, which is a process of its own, goes the same way.
    executions.push((json!("by hand"), scene.run("echo", &json!("by hand"))));
    for (expected, id) in executions {
        let record = scene.wait_for_end(&store, id).await;
        assert_eq!(record.state, State::Succeeded, "{:?}", record.error);
        let result = record.result.expect("it has returned something");
        assert_eq!(*result.get("args").unwrap_or(&result), expected, "no answer was another's");
    }
    let mut records = Raw::connect(scene.store.url()).await;
    let listening = "select count(*) from pg_stat_activity where application_name = 'innkeeper-listen' \
                     and datname = current_database()";
    assert_eq!(records.count(listening).await, 0);
    for host in hosts {
        let log = host.stop().await;
        assert!(!log.contains("the store failed"), "{log}");
    }
    let twice = "select count(*) from (select execution_id, attempt from innkeeper.start group by 1, 2 having count(*) > 1) t";
    assert_eq!(records.count(twice).await, 0, "no attempt was started twice");
    let open = "select count(*) from innkeeper.start s where not exists (select 1 from innkeeper.completion c \
                where c.execution_id = s.execution_id and c.lease = s.lease)";
    assert_eq!(records.count(open).await, 0, "every start has its end");
    assert!(records.count("select count(*) from innkeeper.execution where fire_time is not null").await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_behind_a_pooler_still_has_its_time_out() {
    let scene = Scene::new(Engine::Postgres).await;
    let pooler = Pgbouncer::start(scene.store.url(), "").await;
    let options = StoreOptions {
        pooler: Pooler::Transaction,
        idle_in_transaction_timeout: std::time::Duration::from_millis(200),
        ..StoreOptions::default()
    };
    let url = innkeeper::database_url::DatabaseUrl::Postgres(pooler.url(scene.store.url()));
    let store = Store::connect(&url, &options).await.unwrap();
    let mut records = Raw::connect(scene.store.url()).await;
    let _phase = store.begin(innkeeper::store::PhaseName::Plan).await.unwrap();
    let open = "select count(*) from pg_stat_activity where datname = current_database() \
                and application_name = 'innkeeper-store' and state like 'idle in transaction%'";
    innkeeper_tests::host::until("the database has ended it", async || {
        (records.count(open).await == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_not_told_of_the_pooler_says_what_to_write() {
    let scene = Scene::new(Engine::Postgres).await;
    let pooler = Pgbouncer::start(scene.store.url(), "").await;
    let config = configure(&scene, &pooler, "inn-1");
    for command in [&["check"][..], &["job", "list"], &["migrate"]] {
        let output = scene.innkeeper(command);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{command:?}: {said}");
        assert!(said.contains(ADVICE), "{command:?}: {said}");
    }
    let (status, log) = TestHost::start(&config).wait().await;
    assert!(!status.success() && log.contains(ADVICE), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_hides_itself_at_first_is_told_by_the_statements_that_it_mixes_up() {
    let scene = Scene::new(Engine::Postgres).await.with("store", "max_connections = 4");
    let hiding = "ignore_startup_parameters = extra_float_digits, options";
    let pooler = Pgbouncer::start(scene.store.url(), hiding).await;
    let host = TestHost::start(&configure(&scene, &pooler, "inn-1"));
    host.wait_for_log(ADVICE).await;
}
