//! What is in a store, in words that do not depend on its engine.

use std::collections::{BTreeMap, HashMap};

use innkeeper::database_url::DatabaseUrl;
use innkeeper_tests::database::{Engine, TestDatabase};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row as _, SqliteConnection};

/// A table's rows, each by its columns' names, sorted.
pub type Rows = Vec<BTreeMap<String, String>>;

/// Every table of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables(BTreeMap<String, Rows>);

/// The tables that no operation changes.
const OF_THE_SCHEMA: [&str; 2] = ["schema_migration", "schema_info"];

/// The columns of every table, with PostgreSQL's types. The two engines have the same.
#[derive(Clone, Debug)]
pub struct Columns(BTreeMap<String, Vec<(String, String)>>);

impl Columns {
    pub async fn of(postgres: &TestDatabase) -> Self {
        let DatabaseUrl::Postgres(url) = postgres.url() else { panic!("SQLite has no types to go by") };
        let mut connection = PgConnection::connect(url).await.unwrap();
        let rows: Vec<(String, String, String)> = sqlx::query_as(
            "select table_name::text, column_name::text, data_type::text from information_schema.columns
             where table_schema = 'innkeeper' order by table_name, column_name",
        )
        .fetch_all(&mut connection)
        .await
        .unwrap();
        let mut tables: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        for (table, column, kind) in rows {
            if !OF_THE_SCHEMA.contains(&table.as_str()) {
                tables.entry(table).or_default().push((column, kind));
            }
        }
        Self(tables)
    }

    /// One statement that returns the rows of all tables, as a table's name and the values in
    /// the order of its columns.
    fn select(&self, engine: Engine) -> String {
        let tables = self.0.iter().map(|(table, columns)| {
            let values: Vec<String> = columns.iter().map(|(name, kind)| text(engine, name, kind)).collect();
            let prefix = if engine == Engine::Postgres { "innkeeper." } else { "" };
            format!("select '{table}' as name, {} as row from {prefix}{table}", values.join(SEPARATOR))
        });
        tables.collect::<Vec<_>>().join(" union all ")
    }
}

/// Between two values: the unit separator of ASCII. Written so that both engines join by it.
const SEPARATOR: &str = " || '\u{1f}' || ";
const NULL: &str = "null";

/// A value as text: times in microseconds, booleans 0 and 1, ids in hexadecimal digits.
fn text(engine: Engine, column: &str, kind: &str) -> String {
    let text = match (engine, kind) {
        (Engine::Postgres, "timestamp with time zone") => {
            format!("(extract(epoch from \"{column}\") * 1000000)::bigint::text")
        }
        (Engine::Postgres, "boolean") => format!("(\"{column}\"::int)::text"),
        (Engine::Postgres, "uuid") => format!("replace(\"{column}\"::text, '-', '')"),
        (Engine::Postgres, _) => format!("\"{column}\"::text"),
        (Engine::Sqlite, "uuid") => {
            format!("case when \"{column}\" is not null then lower(hex(\"{column}\")) end")
        }
        (Engine::Sqlite, _) => format!("cast(\"{column}\" as text)"),
    };
    format!("coalesce({text}, '{NULL}')")
}

/// A connection to look at a store with.
pub enum Outside {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

impl Outside {
    pub async fn connect(database: &TestDatabase) -> Self {
        match database.url() {
            DatabaseUrl::Postgres(url) => Self::Postgres(PgConnection::connect(url).await.unwrap()),
            DatabaseUrl::Sqlite(_) => {
                let mut connection = SqliteConnection::connect(&database.address()).await.unwrap();
                sqlx::raw_sql("pragma foreign_keys = off").execute(&mut connection).await.unwrap();
                Self::Sqlite(connection)
            }
        }
    }

    /// Removes every row that is in a table which was empty in `fresh`.
    pub async fn clear(&mut self, fresh: &Tables, columns: &Columns) {
        let tables = columns.0.keys().filter(|table| fresh.rows(table).is_empty());
        match self {
            Self::Postgres(connection) => {
                let tables: Vec<String> = tables.map(|table| format!("innkeeper.{table}")).collect();
                let truncate = AssertSqlSafe(format!("truncate {}", tables.join(", ")));
                sqlx::raw_sql(truncate).execute(connection).await.unwrap();
            }
            Self::Sqlite(connection) => {
                let deletes: String = tables.map(|table| format!("delete from {table};")).collect();
                let transaction = AssertSqlSafe(format!("begin immediate; {deletes} commit"));
                sqlx::raw_sql(transaction).execute(connection).await.unwrap();
            }
        }
    }

    pub async fn tables(&mut self, columns: &Columns) -> Tables {
        let rows: Vec<(String, String)> = match self {
            Self::Postgres(connection) => {
                let select = AssertSqlSafe(columns.select(Engine::Postgres));
                let rows = sqlx::query(select).fetch_all(connection).await.unwrap();
                rows.iter().map(|row| (row.get(0), row.get(1))).collect()
            }
            Self::Sqlite(connection) => {
                let select = AssertSqlSafe(columns.select(Engine::Sqlite));
                let rows = sqlx::query(select).fetch_all(connection).await.unwrap();
                rows.iter().map(|row| (row.get(0), row.get(1))).collect()
            }
        };
        let mut tables: BTreeMap<String, Rows> =
            columns.0.keys().map(|table| (table.clone(), Rows::new())).collect();
        for (table, row) in rows {
            let values = row.split('\u{1f}').map(str::to_owned);
            let names = columns.0[&table].iter().map(|(name, _)| name.clone());
            tables.get_mut(&table).unwrap().push(names.zip(values).collect());
        }
        Tables(tables)
    }
}

impl Tables {
    pub fn rows(&self, table: &str) -> &Rows {
        &self.0[table]
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The same with numbers and ids that an engine gives replaced by what they stand for, so
    /// that two stores can be compared: sequences have gaps, and ids are random.
    pub fn named(mut self, executions: &HashMap<String, String>) -> Self {
        let sessions = self.by_order("host_session", "id", "session ");
        let leases = self.by_order("start", "lease", "lease ");
        let stale = self.by_order("stale", "id", "");
        let jobs = self.by_column("job", "id", "name");
        let components = self.by_column("component", "id", "digest");
        for (table, rows) in &mut self.0 {
            for (column, value) in rows.iter_mut().flatten() {
                let names = match (table.as_str(), column.as_str()) {
                    (_, "execution_id") | ("execution", "id" | "retry_of") => executions,
                    (_, "session_id") | ("host_session", "id") => &sessions,
                    (_, "lease" | "lease_floor") => &leases,
                    (_, "job_id") | ("job", "id") => &jobs,
                    (_, "component_id") | ("component", "id") => &components,
                    ("stale", "id") => &stale,
                    _ => continue,
                };
                if let Some(name) = names.get(value) {
                    value.clone_from(name);
                }
            }
            rows.sort();
        }
        self
    }

    fn by_order(&self, table: &str, column: &str, prefix: &str) -> HashMap<String, String> {
        let mut numbers: Vec<i64> = self.0[table].iter().map(|row| row[column].parse().unwrap()).collect();
        numbers.sort_unstable();
        let places = numbers.iter().enumerate();
        places.map(|(place, number)| (number.to_string(), format!("{prefix}{}", place + 1))).collect()
    }

    fn by_column(&self, table: &str, column: &str, name: &str) -> HashMap<String, String> {
        self.0[table].iter().map(|row| (row[column].clone(), row[name].clone())).collect()
    }

    /// The rows that are in one and not in the other.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        for (table, rows) in &self.0 {
            let others = &other.0[table];
            let only = |rows: &Rows, others: &Rows| -> Rows {
                rows.iter().filter(|row| !others.contains(row)).cloned().collect()
            };
            let (here, there) = (only(rows, others), only(others, rows));
            if rows != others {
                differences.push(format!("{table}: {here:?} and {there:?}"));
            }
        }
        differences
    }
}
