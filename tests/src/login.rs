//! Logins on the test server that a test throws away.

use innkeeper::database_url::DatabaseUrl;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// A role that may log in, and nothing else so far. It is dropped at the end, which is possible
/// once nothing belongs to it and it has no rights: declare it before the database that it gets
/// rights in.
#[derive(Debug)]
pub struct Login(String);

impl Login {
    /// Makes one with a name that no other test has.
    pub async fn new() -> Self {
        Self::with("").await
    }

    /// The same with further attributes, such as `SUPERUSER` or `IN ROLE …`.
    pub async fn with(attributes: &str) -> Self {
        let name = format!("login_{}", uuid::Uuid::new_v4().simple());
        on_server(&format!("CREATE ROLE {name} LOGIN PASSWORD '{name}' {attributes}")).await;
        Self(name)
    }

    /// The role's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The database's URL with this login.
    #[must_use]
    pub fn at(&self, database: &DatabaseUrl) -> String {
        let DatabaseUrl::Postgres(url) = database else { panic!("SQLite has no logins") };
        let (_, place) = url.rsplit_once('@').expect("the test server's URL names its login");
        format!("postgres://{0}:{0}@{place}", self.0)
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        let drop_role = format!("DROP ROLE {}", self.0);
        // A thread of its own, since a runtime cannot be entered from within another.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("start a runtime").block_on(on_server(&drop_role));
        });
        // The databases of a test that failed are kept, and the role with them.
        assert!(dropped.join().is_ok() || std::thread::panicking(), "drop the login {}", self.0);
    }
}

async fn on_server(sql: &str) {
    let url = std::env::var("INNKEEPER_TEST_POSTGRES_URL").expect("a test server is named");
    let mut server = PgConnection::connect(&url).await.expect("connect to the test server");
    let run = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut server).await;
    run.unwrap_or_else(|error| panic!("{sql}: {error}"));
}
