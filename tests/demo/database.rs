//! The application's database: made, filled and read with plain SQL, outside of the host.

use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result};
use serde::Serialize;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, SqlitePool};

use crate::data::{AuditRecord, Data, Session};
use crate::example::Databases;

/// Rows in one statement.
const BATCH: usize = 5_000;

/// The application's database, on one of the two engines.
pub enum Application {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// What differs between the engines.
struct Sql {
    create: &'static str,
    insert_sessions: &'static str,
    insert_audit_log: &'static str,
    read_sessions: &'static str,
    read_audit_log: &'static str,
}

/// SQLite keeps times as applications on SQLite often do: seconds since 1970.
const SQLITE: Sql = Sql {
    create: "
        CREATE TABLE sessions (
            id         INTEGER PRIMARY KEY,
            token      TEXT NOT NULL UNIQUE,
            tenant     TEXT NOT NULL,
            user_name  TEXT,
            data       BLOB NOT NULL,
            created_at INTEGER NOT NULL,
            expires_at INTEGER
        );
        CREATE INDEX sessions_expires_at ON sessions (expires_at);
        CREATE TABLE audit_log (
            id          INTEGER PRIMARY KEY,
            tenant      TEXT NOT NULL,
            actor       TEXT,
            action      TEXT NOT NULL,
            recorded_at INTEGER NOT NULL
        );
        CREATE INDEX audit_log_recorded_at ON audit_log (recorded_at);",
    insert_sessions: "
        INSERT INTO sessions (id, token, tenant, user_name, data, created_at, expires_at)
        SELECT value ->> 'id', value ->> 'token', value ->> 'tenant', value ->> 'user_name',
               unhex(value ->> 'data'), value ->> 'created_at' / 1000000, value ->> 'expires_at' / 1000000
        FROM json_each($1)",
    insert_audit_log: "
        INSERT INTO audit_log (id, tenant, actor, action, recorded_at)
        SELECT value ->> 'id', value ->> 'tenant', value ->> 'actor', value ->> 'action',
               value ->> 'recorded_at' / 1000000
        FROM json_each($1)",
    read_sessions: "
        SELECT id, token, tenant, user_name, data, created_at * 1000000, expires_at * 1000000
        FROM sessions ORDER BY id",
    read_audit_log: "
        SELECT id, tenant, actor, action, recorded_at * 1000000 FROM audit_log ORDER BY id",
};

const POSTGRES: Sql = Sql {
    create: "
        CREATE TABLE sessions (
            id         bigint PRIMARY KEY,
            token      text NOT NULL UNIQUE,
            tenant     text NOT NULL,
            user_name  text,
            data       bytea NOT NULL,
            created_at timestamptz NOT NULL,
            expires_at timestamptz
        );
        CREATE INDEX sessions_expires_at ON sessions (expires_at);
        CREATE TABLE audit_log (
            id          bigint PRIMARY KEY,
            tenant      text NOT NULL,
            actor       text,
            action      text NOT NULL,
            recorded_at timestamptz NOT NULL
        );
        CREATE INDEX audit_log_recorded_at ON audit_log (recorded_at);",
    insert_sessions: "
        INSERT INTO sessions (id, token, tenant, user_name, data, created_at, expires_at)
        SELECT id, token, tenant, user_name, decode(data, 'hex'),
               to_timestamp(created_at / 1000000), to_timestamp(expires_at / 1000000)
        FROM jsonb_to_recordset($1::text::jsonb) AS row
             (id bigint, token text, tenant text, user_name text, data text, created_at bigint, expires_at bigint)",
    insert_audit_log: "
        INSERT INTO audit_log (id, tenant, actor, action, recorded_at)
        SELECT id, tenant, actor, action, to_timestamp(recorded_at / 1000000)
        FROM jsonb_to_recordset($1::text::jsonb) AS row
             (id bigint, tenant text, actor text, action text, recorded_at bigint)",
    read_sessions: "
        SELECT id, token, tenant, user_name, data,
               (extract(epoch FROM created_at) * 1000000)::bigint,
               (extract(epoch FROM expires_at) * 1000000)::bigint
        FROM sessions ORDER BY id",
    read_audit_log: "
        SELECT id, tenant, actor, action, (extract(epoch FROM recorded_at) * 1000000)::bigint
        FROM audit_log ORDER BY id",
};

/// Does the same on either engine: sqlx has a type for each.
macro_rules! on_either {
    ($application:expr, |$pool:ident, $sql:ident| $body:expr) => {
        match $application {
            Application::Sqlite($pool) => {
                let $sql = SQLITE;
                $body
            }
            Application::Postgres($pool) => {
                let $sql = POSTGRES;
                $body
            }
        }
    };
}

impl Application {
    /// Opens the application's database.
    pub async fn open(databases: &Databases) -> Result<Self> {
        match databases {
            Databases::Sqlite { application } => Self::open_sqlite(application).await,
            Databases::Postgres { application, .. } => Self::open_postgres(application).await,
        }
    }

    /// Opens a SQLite file, which may be new.
    pub async fn open_sqlite(file: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await;
        Ok(Self::Sqlite(pool.with_context(|| format!("{} cannot be opened", file.display()))?))
    }

    /// Connects to a database on PostgreSQL.
    pub async fn open_postgres(url: &str) -> Result<Self> {
        let options = PgConnectOptions::from_str(url).context("the URL of PostgreSQL is not valid")?;
        let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await;
        Ok(Self::Postgres(pool.context("the application's database cannot be reached")?))
    }

    /// Makes the tables and fills them, in one transaction.
    pub async fn fill(&self, data: &Data) -> Result<()> {
        on_either!(self, |pool, sql| {
            let mut transaction = pool.begin().await?;
            sqlx::raw_sql(sql.create).execute(&mut *transaction).await?;
            for rows in in_batches(&data.sessions) {
                sqlx::query(sql.insert_sessions).bind(rows?).execute(&mut *transaction).await?;
            }
            for rows in in_batches(&data.audit_log) {
                sqlx::query(sql.insert_audit_log).bind(rows?).execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
        });
        Ok(())
    }

    /// Reads the table `sessions`, in the order of ids.
    pub async fn sessions(&self) -> Result<Vec<Session>> {
        type Row = (i64, String, String, Option<String>, Vec<u8>, i64, Option<i64>);
        let rows: Vec<Row> =
            on_either!(self, |pool, sql| sqlx::query_as(sql.read_sessions).fetch_all(pool).await)?;
        let session = |(id, token, tenant, user_name, data, created_at, expires_at)| Session {
            id,
            token,
            tenant,
            user_name,
            data,
            created_at,
            expires_at,
        };
        Ok(rows.into_iter().map(session).collect())
    }

    /// Reads the table `audit_log`, in the order of ids.
    pub async fn audit_log(&self) -> Result<Vec<AuditRecord>> {
        type Row = (i64, String, Option<String>, String, i64);
        let rows: Vec<Row> =
            on_either!(self, |pool, sql| sqlx::query_as(sql.read_audit_log).fetch_all(pool).await)?;
        let record =
            |(id, tenant, actor, action, recorded_at)| AuditRecord { id, tenant, actor, action, recorded_at };
        Ok(rows.into_iter().map(record).collect())
    }

    /// Changes the tables behind everybody's back.
    #[cfg(test)]
    pub async fn change(&self, statement: &'static str) -> Result<()> {
        on_either!(self, |pool, _sql| {
            sqlx::raw_sql(statement).execute(pool).await?;
        });
        Ok(())
    }

    /// Closes the connections.
    pub async fn close(self) {
        on_either!(self, |pool, _sql| pool.close().await);
    }
}

fn in_batches<T: Serialize>(rows: &[T]) -> impl Iterator<Item = serde_json::Result<String>> {
    rows.chunks(BATCH).map(serde_json::to_string)
}

/// Makes a fresh database on a server, in place of an earlier one of this name, and returns
/// its URL. The name is plain ASCII and one of ours.
pub async fn create_on_server(server_url: &str, name: &str) -> Result<String> {
    drop_on_server(server_url, name).await?;
    let statement = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'");
    run_on_server(server_url, statement).await?;
    Ok(with_database(server_url, name))
}

/// Removes a database of ours, if it is there.
pub async fn drop_on_server(server_url: &str, name: &str) -> Result<()> {
    run_on_server(server_url, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await
}

async fn run_on_server(server_url: &str, statement: String) -> Result<()> {
    let options = PgConnectOptions::from_str(server_url).context("the URL of PostgreSQL is not valid")?;
    let mut connection =
        PgConnection::connect_with(&options).await.context("the PostgreSQL server cannot be reached")?;
    let failed = format!("`{statement}` failed");
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.context(failed)?;
    connection.close().await?;
    Ok(())
}

/// The URL of another database on the same server.
fn with_database(url: &str, name: &str) -> String {
    let (place, parameters) = match url.split_once('?') {
        Some((place, parameters)) => (place, format!("?{parameters}")),
        None => (url, String::new()),
    };
    let (scheme, rest) = place.split_once("://").unwrap_or(("postgres", place));
    // A password may hold a `/`, though it should not.
    let host = rest.rfind('@').map_or(0, |at| at + 1);
    let end = rest[host..].find('/').map_or(rest.len(), |slash| host + slash);
    format!("{scheme}://{}/{name}{parameters}", &rest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_database_of_a_url_is_replaced() {
        for (url, expected) in [
            ("postgres://postgres@127.0.0.1:5432/postgres", "postgres://postgres@127.0.0.1:5432/new"),
            ("postgres://db.example", "postgres://db.example/new"),
            ("postgresql://a:b@db/x?sslmode=require", "postgresql://a:b@db/new?sslmode=require"),
            ("postgres://a:b/c@db/x", "postgres://a:b/c@db/new"),
        ] {
            assert_eq!(with_database(url, "new"), expected);
        }
    }
}
