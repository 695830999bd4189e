//! The statements of the plugin on both engines, for every way of storing a time.
//!
//! Parameters are written into the statement: what is tested is the SQL, not the host's `db`.

use std::collections::BTreeMap;

use innkeeper_sdk::db::Value;
use maintenance::table::{SESSIONS, Table};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, SqliteConnection};

/// 2026-03-01T00:00:00.5Z.
const CUTOFF: i64 = 1_772_323_200_500_000;

/// A stored time as an SQL literal, and whether it is before the cutoff for certain.
type Stored = (&'static str, bool);

const SECONDS: &[Stored] = &[
    ("1772323199", true),
    ("1", true),
    ("1772323200", false),
    ("1772323201", false),
    ("null", false),
    ("0", false),
    ("-1", false),
];

const MILLISECONDS: &[Stored] = &[
    ("1772323200499", true),
    ("1772323200500", false),
    ("1772323200501", false),
    ("null", false),
    ("0", false),
];

const TEXTS: &[Stored] = &[
    ("'2026-02-28 23:59:59'", true),
    ("'2026-02-28 23:59:59.999999'", true),
    ("'2026-02-28T23:59:59Z'", true),
    ("'2026-02-28T23:59:59.9+00:00'", true),
    ("'1999-12-31T00:00:00'", true),
    // Not before the cutoff's second is over.
    ("'2026-03-01 00:00:00'", false),
    ("'2026-03-01 00:00:00.400000'", false),
    ("'2026-03-01T00:00:00Z'", false),
    ("'2026-03-01 00:00:01'", false),
    ("'2026-03-01T23:00:00'", false),
    ("'2026-03-02 00:00:00'", false),
    // 2026-03-01T04:59:59Z.
    ("'2026-02-28T23:59:59-05:00'", false),
    ("null", false),
    ("''", false),
    ("'0'", false),
    ("'1700000000'", false),
    ("'2026'", false),
    ("'never'", false),
];

const TIMESTAMPS: &[Stored] = &[
    ("'2026-03-01 00:00:00.499999+00'", true),
    ("'2026-03-01 00:59:59+01'", true),
    ("'-infinity'", true),
    ("'2026-03-01 00:00:00.5+00'", false),
    ("'2026-02-28 23:00:00.5-01'", false),
    ("'infinity'", false),
    ("null", false),
];

const NAIVE_TIMESTAMPS: &[Stored] = &[
    ("'2026-03-01 00:00:00.499999'", true),
    ("'2026-03-01 00:00:00.5'", false),
    ("'infinity'", false),
    ("null", false),
];

/// SQLite puts anything anywhere: numbers where text is expected, and text for numbers.
const OTHERS_ON_SQLITE: &[Stored] =
    &[("x'00'", false), ("'x'", false), ("''", false), ("'2020-01-01'", false)];

enum Database {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Database {
    async fn sqlite() -> Self {
        Self::Sqlite(SqliteConnection::connect("sqlite::memory:").await.unwrap())
    }

    async fn postgres() -> Self {
        let url = std::env::var("INNKEEPER_TEST_POSTGRES_URL").expect(
            "INNKEEPER_TEST_POSTGRES_URL names the PostgreSQL to test with; `cargo xtask test` sets it",
        );
        Self::Postgres(PgConnection::connect(&url).await.unwrap())
    }

    async fn execute(&mut self, sql: String) -> u64 {
        let sql = AssertSqlSafe(sql);
        match self {
            Self::Sqlite(c) => sqlx::raw_sql(sql).execute(c).await.unwrap().rows_affected(),
            Self::Postgres(c) => sqlx::raw_sql(sql).execute(c).await.unwrap().rows_affected(),
        }
    }

    async fn integers(&mut self, sql: String) -> Vec<i64> {
        let sql = AssertSqlSafe(sql);
        match self {
            Self::Sqlite(c) => {
                sqlx::raw_sql(sql).fetch_all(c).await.unwrap().iter().map(|row| row.get(0)).collect()
            }
            Self::Postgres(c) => {
                sqlx::raw_sql(sql).fetch_all(c).await.unwrap().iter().map(|row| row.get(0)).collect()
            }
        }
    }
}

fn inlined(statement: &str, params: &[Value]) -> String {
    let mut statement = statement.to_owned();
    for (index, value) in params.iter().enumerate() {
        let literal = match value {
            Value::Integer(integer) => integer.to_string(),
            Value::Text(text) => format!("'{text}'"),
            Value::Instant(micros) => format!("(timestamptz 'epoch' + interval '{micros} microseconds')"),
            Value::Timestamp(micros) => format!("(timestamp 'epoch' + interval '{micros} microseconds')"),
            other => panic!("the plugin passes no {other:?}"),
        };
        statement = statement.replace(&format!("${}", index + 1), &literal);
    }
    statement
}

/// Deletes, two rows at a time, from a table of a column of type `declared` with these times, and
/// expects that exactly those before the cutoff are gone.
async fn check(database: &mut Database, format: &str, declared: &str, stored: &[Stored]) {
    let config =
        [("table", "s\"e"), ("key_column", "Key"), ("expires_column", "Ends At"), ("time_format", format)];
    let config: BTreeMap<String, String> =
        config.iter().map(|(key, value)| (format!("sessions.{key}"), (*value).to_owned())).collect();
    let statements = Table::from_config(&SESSIONS, &config).unwrap().statements(CUTOFF, 2);

    let sql = format!("create temp table \"s\"\"e\" (\"Key\" bigint primary key, \"Ends At\" {declared})");
    database.execute(sql).await;
    for (key, (time, _)) in stored.iter().enumerate() {
        database.execute(format!("insert into \"s\"\"e\" values ({key}, {time})")).await;
    }
    let before = stored.iter().filter(|(_, before)| *before).count();
    let counted = database.integers(inlined(&statements.count, &statements.count_params)).await;
    assert_eq!(counted, [i64::try_from(before).unwrap()], "{format} in {declared:?}");

    let delete = inlined(&statements.delete, &statements.delete_params);
    let mut deleted = 0;
    loop {
        let batch = database.execute(delete.clone()).await;
        assert!(batch <= 2, "a batch of {batch}");
        deleted += batch;
        if batch == 0 {
            break;
        }
    }
    let left = database.integers("select \"Key\" from \"s\"\"e\" order by \"Key\"".into()).await;
    let expected: Vec<i64> =
        (0..).zip(stored).filter(|(_, (_, before))| !before).map(|(key, _)| key).collect();
    assert_eq!(left, expected, "{format} in {declared:?}");
    assert_eq!(usize::try_from(deleted).unwrap(), before, "{format} in {declared:?}");
    database.execute("drop table \"s\"\"e\"".into()).await;
}

#[tokio::test]
async fn on_sqlite_exactly_the_rows_before_the_cutoff_are_deleted() {
    let mut database = Database::sqlite().await;
    for declared in ["", "integer", "real", "numeric", "text", "datetime"] {
        let seconds = [SECONDS, OTHERS_ON_SQLITE].concat();
        check(&mut database, "seconds", declared, &seconds).await;
        let milliseconds = [MILLISECONDS, OTHERS_ON_SQLITE].concat();
        check(&mut database, "milliseconds", declared, &milliseconds).await;
        let numbers: &[Stored] = &[("1700000000", false), ("-1", false), ("1.5", false)];
        let texts = [TEXTS, numbers, OTHERS_ON_SQLITE].concat();
        check(&mut database, "text", declared, &texts).await;
    }
}

#[tokio::test]
async fn on_postgresql_exactly_the_rows_before_the_cutoff_are_deleted() {
    let mut database = Database::postgres().await;
    for declared in ["integer", "bigint", "double precision", "numeric"] {
        check(&mut database, "seconds", declared, SECONDS).await;
    }
    for declared in ["bigint", "double precision", "numeric"] {
        check(&mut database, "milliseconds", declared, MILLISECONDS).await;
    }
    for declared in ["text", "varchar(40)"] {
        check(&mut database, "text", declared, TEXTS).await;
    }
    check(&mut database, "timestamp", "timestamptz", TIMESTAMPS).await;
    check(&mut database, "timestamp-without-zone", "timestamp", NAIVE_TIMESTAMPS).await;
}

#[tokio::test]
async fn on_postgresql_a_session_that_is_renewed_while_its_batch_waits_is_not_deleted() {
    let mut application = Database::postgres().await;
    let mut plugin = Database::postgres().await;
    let mut watcher = Database::postgres().await;
    let pid = plugin.integers("select pg_backend_pid()::bigint".into()).await[0];
    let table = format!("renewed_{pid}");
    let config = [("sessions.table", &*table), ("sessions.time_format", "seconds")];
    let config = config.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let statements = Table::from_config(&SESSIONS, &config).unwrap().statements(CUTOFF, 10);
    let delete = inlined(&statements.delete, &statements.delete_params);

    application.execute(format!("drop table if exists {table}")).await;
    application.execute(format!("create table {table} (id bigint primary key, expires_at bigint)")).await;
    application.execute(format!("insert into {table} values (1, 5), (2, 5)")).await;
    application.execute("begin".into()).await;
    application.execute(format!("update {table} set expires_at = 1872323200 where id = 1")).await;
    let batch = tokio::spawn(async move { plugin.execute(delete).await });
    let waits =
        format!("select count(*) from pg_stat_activity where pid = {pid} and wait_event_type = 'Lock'");
    while watcher.integers(waits.clone()).await != [1] {
        assert!(!batch.is_finished(), "the batch did not wait for the application's transaction");
        tokio::task::yield_now().await;
    }
    application.execute("commit".into()).await;

    assert_eq!(batch.await.unwrap(), 1);
    assert_eq!(application.integers(format!("select id from {table}")).await, [1]);
    application.execute(format!("drop table {table}")).await;
}
