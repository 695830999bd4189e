//! The tables that both sides use, and the statements that both sides run.

use anyhow::{Context as _, Result};
use innkeeper::database_url::DatabaseUrl;
use innkeeper_tests::database::{Engine, TestDatabase};
use innkeeper_tests::raw::Raw;

/// A database with its tables filled.
pub struct Tables {
    database: TestDatabase,
    /// The engine's statements.
    pub statements: &'static Statements,
    /// Which engine it is and how it is set, for whoever reads the figures.
    pub about: String,
}

/// The same on both sides.
pub struct Statements {
    setup: &'static str,
    /// One of the ten thousand rows by its key: a text and a float.
    pub one: &'static str,
    /// All ten thousand rows: six columns.
    pub all: &'static str,
    /// One row of three columns.
    pub insert: &'static str,
    /// Empties what `insert` has filled.
    pub make_room: &'static str,
    /// A million rows of three columns.
    pub million: &'static str,
    /// Changes a row that nothing else uses.
    pub change: &'static str,
    /// Begins a transaction in which nobody else can do that.
    pub lock: &'static str,
    /// Does not end, and brings no rows.
    pub endless: &'static str,
}

const ONE: &str = "select name, score from records where id = $1";
const ALL: &str = "select id, name, score, active, at, note from records";
const INSERT: &str = "insert into written (id, name, score) values ($1, $2, $3)";
const MILLION: &str = "select id, name, score from million";
const CHANGE: &str = "update changed set number = number + 1 where id = 1";
const ENDLESS: &str = "with recursive n(i) as (select 1 union all select 1 from n) select count(*) from n";

const SQLITE: Statements = Statements {
    setup: "
        create table records (id integer primary key, name text not null, score real not null,
                              active integer not null, at text not null, note text);
        with recursive n(i) as (select 1 union all select i + 1 from n where i < 10000)
        insert into records
        select i, 'record number ' || i, i * 0.5, i % 3 = 0, datetime(1704067200 + i, 'unixepoch'),
               case when i % 2 = 0 then 'a note on ' || i end
        from n;
        create table million (id integer primary key, name text not null, score real not null);
        with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000000)
        insert into million select i, 'record number ' || i, i * 0.5 from n;
        create table written (id integer primary key, name text not null, score real not null);
        create table changed (id integer primary key, number integer not null);
        insert into changed values (1, 0);
        pragma wal_checkpoint(truncate);
    ",
    one: ONE,
    all: ALL,
    insert: INSERT,
    make_room: "delete from written",
    million: MILLION,
    change: CHANGE,
    lock: "begin immediate",
    endless: ENDLESS,
};

const POSTGRES: Statements = Statements {
    setup: "
        create table records (id int8 primary key, name text not null, score float8 not null,
                              active bool not null, at timestamptz not null, note text);
        insert into records
        select i, 'record number ' || i, i * 0.5, i % 3 = 0, to_timestamp(1704067200 + i),
               case when i % 2 = 0 then 'a note on ' || i end
        from generate_series(1, 10000) i;
        create table million (id int8 primary key, name text not null, score float8 not null);
        insert into million select i, 'record number ' || i, i * 0.5 from generate_series(1, 1000000) i;
        create table written (id int8 primary key, name text not null, score float8 not null);
        create table changed (id int8 primary key, number int8 not null);
        insert into changed values (1, 0);
    ",
    make_room: "truncate written",
    lock: "begin; lock table changed",
    ..SQLITE
};

impl Tables {
    /// Makes and fills them.
    ///
    /// # Errors
    /// What the database says.
    pub async fn make(engine: Engine) -> Result<Self> {
        let database = TestDatabase::empty(engine).await;
        let mut raw = Raw::connect(database.url()).await;
        let statements = match engine {
            Engine::Sqlite => &SQLITE,
            Engine::Postgres => &POSTGRES,
        };
        raw.try_execute(statements.setup).await.context("the tables could not be made")?;
        let about = match engine {
            Engine::Sqlite => {
                let version = raw.texts("select sqlite_version()").await.concat();
                format!("SQLite {version}, WAL, synchronous = FULL, in {}", database.address())
            }
            Engine::Postgres => {
                // No round should meet a vacuum, or be the first to read a row.
                raw.execute("vacuum analyze").await;
                let settings = "select setting from pg_settings where name in ('server_version', 'fsync', \
                                'synchronous_commit') order by array_position(array['server_version', \
                                'fsync', 'synchronous_commit'], name)";
                match &raw.texts(settings).await[..] {
                    [version, fsync, commit] => {
                        format!("PostgreSQL {version}, fsync = {fsync}, synchronous_commit = {commit}")
                    }
                    _ => "PostgreSQL".to_owned(),
                }
            }
        };
        Ok(Self { database, statements, about })
    }

    /// Where they are.
    #[must_use]
    pub fn url(&self) -> &DatabaseUrl {
        self.database.url()
    }
}
