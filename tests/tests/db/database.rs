//! Databases that a test throws away.

use std::time::{Duration, Instant};

use innkeeper::database_url::DatabaseUrl;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

/// On which engine a test runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// An empty database, dropped at the end.
pub struct TestDatabase {
    url: DatabaseUrl,
    _folder: Option<tempfile::TempDir>,
    dropped: Option<String>,
}

impl TestDatabase {
    pub async fn empty(engine: Engine) -> Self {
        match engine {
            Engine::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                let url = DatabaseUrl::Sqlite(folder.path().join("app.db"));
                Self { url, _folder: Some(folder), dropped: None }
            }
            Engine::Postgres => {
                let name = format!("db_{}", uuid::Uuid::new_v4().simple());
                let mut server = PgConnection::connect(&server_url()).await.unwrap();
                run(&mut server, &format!("CREATE DATABASE {name}")).await;
                let server = server_url();
                let (base, _) = server.rsplit_once('/').unwrap();
                Self {
                    url: DatabaseUrl::Postgres(format!("{base}/{name}")),
                    _folder: None,
                    dropped: Some(name),
                }
            }
        }
    }

    pub fn url(&self) -> DatabaseUrl {
        self.url.clone()
    }

    /// Runs statements outside of the host.
    pub async fn run(&self, sql: &str) {
        match &self.url {
            DatabaseUrl::Postgres(url) => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                run(&mut connection, sql).await;
                connection.close().await.unwrap();
            }
            DatabaseUrl::Sqlite(path) => {
                let mut connection = self.sqlite(path).await;
                sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
        }
    }

    /// The only number of the only row, seen from outside of the host.
    pub async fn number(&self, sql: &str) -> i64 {
        match &self.url {
            DatabaseUrl::Postgres(url) => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await.unwrap()
            }
            DatabaseUrl::Sqlite(path) => {
                let mut connection = self.sqlite(path).await;
                sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await.unwrap()
            }
        }
    }

    async fn sqlite(&self, path: &std::path::Path) -> SqliteConnection {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true);
        SqliteConnection::connect_with(&options).await.unwrap()
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Some(name) = self.dropped.take() else { return };
        // On a thread of its own, since this one may be inside of a runtime.
        let done = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut server = PgConnection::connect(&server_url()).await.unwrap();
                run(&mut server, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
            });
        });
        let _panicked = done.join();
    }
}

fn server_url() -> String {
    std::env::var("INNKEEPER_TEST_POSTGRES_URL").expect("no PostgreSQL is named: run `cargo xtask test`")
}

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.unwrap();
}

/// Waits until `condition` holds.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition().await {
        assert!(Instant::now() < deadline, "it did not happen in 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
