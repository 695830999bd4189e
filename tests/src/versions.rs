//! Versions of innkeeper that there are not, by the migrations that they would have.

use innkeeper::database_url::DatabaseUrl;
use innkeeper::store::{Migration, migrations};

use crate::database::Engine;

/// The newest migration that there is.
#[must_use]
pub fn newest(engine: Engine) -> i32 {
    ours(engine).last().expect("there are migrations").number
}

/// Those of the last version that cannot work on the schema of this one.
#[must_use]
pub fn version_before_the_last_break(engine: Engine) -> &'static [Migration] {
    let breaks = |migration: &Migration| migration.oldest_compatible == Some(migration.number);
    let last = ours(engine).iter().rposition(breaks).expect("the limits have been one");
    &ours(engine)[..last]
}

/// Those of the next version: one more, which adds what a migration may add while hosts of this
/// version work. `oldest_compatible` is what it declares, beyond that.
#[must_use]
pub fn next_version(engine: Engine, oldest_compatible: Option<i32>) -> &'static [Migration] {
    let number = newest(engine) + 1;
    let name: &'static str = format!("{number:04}_next").leak();
    let prefix = match engine {
        Engine::Postgres => "innkeeper.",
        Engine::Sqlite => "",
    };
    let sql: &'static str = ADDITIONS.replace("{}", prefix).leak();
    let mut all = ours(engine).to_vec();
    all.push(Migration { number, name, sql, oldest_compatible });
    all.leak()
}

/// To every table that hosts are busy with.
const ADDITIONS: &str = "
    alter table {}host_session add column zone text;
    alter table {}job add column note text;
    alter table {}execution add column tenant integer not null default 0;
    alter table {}ready add column lane integer;
    alter table {}waiting add column lane integer not null default 0;
    alter table {}start add column worker text;
    alter table {}completion add column cost integer;
    create index execution_tenant on {}execution (tenant);
    create table {}zone (id integer primary key, name text not null)";

fn ours(engine: Engine) -> &'static [Migration] {
    match engine {
        Engine::Postgres => migrations(&DatabaseUrl::Postgres(String::new())),
        Engine::Sqlite => migrations(&DatabaseUrl::Sqlite("x".into())),
    }
}
