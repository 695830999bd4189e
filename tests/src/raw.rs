//! A connection of the test's own, outside the host: to prepare, to look, and to hold locks.

use innkeeper::database_url::DatabaseUrl;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Row as _};

/// A connection to either engine.
pub enum Raw {
    /// To a file.
    Sqlite(SqliteConnection),
    /// To a server.
    Postgres(PgConnection),
}

impl Raw {
    /// Connects. On SQLite nothing is waited for: what is locked is an error at once.
    pub async fn connect(url: &DatabaseUrl) -> Self {
        match url {
            DatabaseUrl::Sqlite(path) => {
                let options = SqliteConnectOptions::new()
                    .filename(path)
                    .create_if_missing(true)
                    .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
                    .busy_timeout(std::time::Duration::ZERO);
                Self::Sqlite(options.connect().await.expect("the file can be opened"))
            }
            DatabaseUrl::Postgres(url) => {
                Self::Postgres(PgConnection::connect(url).await.expect("the server answers"))
            }
        }
    }

    /// Runs a script.
    ///
    /// # Errors
    /// What the database says.
    pub async fn try_execute(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Sqlite(connection) => sqlx::raw_sql(sql).execute(connection).await.map(drop),
            Self::Postgres(connection) => sqlx::raw_sql(sql).execute(connection).await.map(drop),
        }
    }

    /// Runs a script that has to succeed.
    pub async fn execute(&mut self, sql: &str) {
        self.try_execute(sql).await.unwrap_or_else(|error| panic!("{error} in {sql}"));
    }

    /// Begins a transaction that keeps every other writer out: of `table` on PostgreSQL, of
    /// the whole file on SQLite (for which it waits its turn).
    pub async fn lock(&mut self, table: &str) {
        match self {
            Self::Postgres(_) => {
                self.execute(&format!("begin; lock table {table} in access exclusive mode")).await;
            }
            Self::Sqlite(_) => {
                self.execute("pragma busy_timeout = 30000").await;
                self.execute("begin immediate").await;
            }
        }
    }

    /// Ends the transaction of [`Raw::lock`].
    pub async fn unlock(&mut self) {
        self.execute("rollback").await;
    }

    /// A count: the first column of the first row.
    pub async fn count(&mut self, sql: &str) -> i64 {
        let text = AssertSqlSafe(sql.to_owned());
        let count = match self {
            Self::Sqlite(connection) => sqlx::query(text).fetch_one(connection).await.map(|row| row.get(0)),
            Self::Postgres(connection) => sqlx::query(text).fetch_one(connection).await.map(|row| row.get(0)),
        };
        count.unwrap_or_else(|error| panic!("{error} in {sql}"))
    }

    /// The first column of every row, as text.
    pub async fn texts(&mut self, sql: &str) -> Vec<String> {
        let text = AssertSqlSafe(sql.to_owned());
        let texts = match self {
            Self::Sqlite(connection) => sqlx::query(text)
                .fetch_all(connection)
                .await
                .map(|rows| rows.iter().map(|row| row.get(0)).collect()),
            Self::Postgres(connection) => sqlx::query(text)
                .fetch_all(connection)
                .await
                .map(|rows| rows.iter().map(|row| row.get(0)).collect()),
        };
        texts.unwrap_or_else(|error| panic!("{error} in {sql}"))
    }
}

/// Makes the tables that the probe's `hold` handler needs.
pub async fn make_gate(app: &mut Raw) {
    app.execute(
        "create table inside (execution text); create table gate (id text primary key, released boolean)",
    )
    .await;
}

/// Lets every handler out that is held at a gate.
pub async fn open_gate(app: &mut Raw, id: &str) {
    let sql = format!("insert into gate (id, released) values ('{id}', true)");
    // On SQLite a handler may be writing at this very moment.
    crate::host::until("the gate is open", async || app.try_execute(&sql).await.ok()).await;
}
