//! Migrations, and that both engines have the same schema.

use std::collections::BTreeSet;

use innkeeper::database_url::DatabaseUrl;
use innkeeper::store::{Store, StoreError, StoreOptions, migrations, statements};
use innkeeper_tests::database::{Engine, TestDatabase, migrations_folder};
use sqlx::{Connection, Executor, SqlSafeStr};

use crate::rule;
use crate::world::World;

rule!(hosts_that_start_at_once_on_an_empty_database_apply_each_migration_once, async |world: &World| {
    let empty = TestDatabase::empty(world.database.engine()).await;
    let mut hosts = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let store = empty.store(1).await;
        hosts.spawn(async move {
            let applied = store.migrate().await.unwrap().applied.len();
            store.check_schema().await.unwrap();
            applied
        });
    }
    let all = migrations(empty.url()).len();
    assert_eq!(hosts.join_all().await.into_iter().sum::<usize>(), all);
});

rule!(a_store_without_a_schema_says_what_to_run, async |world: &World| {
    let empty = TestDatabase::empty(world.database.engine()).await;
    let error = empty.store(1).await.check_schema().await.unwrap_err();
    assert!(matches!(error, StoreError::NotMigrated(_)), "{error:?}");
    assert!(error.to_string().contains("run `innkeeper migrate`"), "{error}");
    let error = empty.store(1).await.jobs().await.unwrap_err();
    assert!(matches!(error, StoreError::NotMigrated(_)), "{error:?}");
});

rule!(a_schema_that_is_up_to_date_is_left_alone, async |world: &World| {
    world.store.check_schema().await.unwrap();
    assert_eq!(world.store.migrate().await.unwrap().applied, []);
});

rule!(a_schema_that_declares_this_binary_too_old_is_refused_in_clear_words, async |world: &World| {
    let newer = "insert into {}schema_migration (number, name, checksum, version, applied_at)
        select 9999, '9999_future', '', '99.0.0', applied_at from {}schema_migration limit 1;
        update {}schema_info set oldest_compatible = 9998";
    world.tamper(newer).await;
    for refused in [world.store.check_schema().await, world.store.migrate().await.map(drop)] {
        let error = refused.unwrap_err();
        assert!(matches!(error, StoreError::TooOld { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(env!("CARGO_PKG_VERSION")) && text.contains("innkeeper 99.0.0"), "{text}");
        assert!(text.contains("9998"), "{text}");
    }
});

rule!(a_newer_schema_that_is_compatible_is_accepted, async |world: &World| {
    let newer = "insert into {}schema_migration (number, name, checksum, version, applied_at)
        select 9999, '9999_future', '', '99.0.0', applied_at from {}schema_migration limit 1";
    world.tamper(newer).await;
    world.store.check_schema().await.unwrap();
    assert_eq!(world.store.migrate().await.unwrap().applied, []);
});

rule!(a_schema_that_is_older_than_the_binary_needs_says_what_to_run, async |world: &World| {
    let first = "delete from {}schema_migration where number = (select max(number) from {}schema_migration)";
    world.tamper(first).await;
    let error = world.store.check_schema().await.unwrap_err();
    assert!(matches!(error, StoreError::Behind { .. }), "{error:?}");
    assert!(error.to_string().contains("run `innkeeper migrate`"), "{error}");
});

rule!(a_migration_that_was_applied_with_other_contents_is_reported, async |world: &World| {
    world.tamper("update {}schema_migration set checksum = 'another'").await;
    let error = world.store.check_schema().await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
});

rule!(every_statement_can_be_prepared, async |world: &World| {
    let statements = statements(world.database.url());
    assert!(statements.len() > 50);
    match world.database.url() {
        DatabaseUrl::Postgres(url) => {
            let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
            for (name, sql) in statements {
                let prepared = connection.prepare(sql.into_sql_str()).await;
                assert!(prepared.is_ok(), "{name}: {prepared:?}");
            }
        }
        DatabaseUrl::Sqlite(path) => {
            let url = format!("sqlite:{}", path.display());
            let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
            for (name, sql) in statements {
                let prepared = connection.prepare(sql.into_sql_str()).await;
                assert!(prepared.is_ok(), "{name}: {prepared:?}");
            }
        }
    }
});

#[tokio::test]
async fn both_engines_have_the_same_tables_and_columns() {
    let sqlite = TestDatabase::migrated(Engine::Sqlite).await;
    let postgres = TestDatabase::migrated(Engine::Postgres).await;
    let DatabaseUrl::Postgres(url) = postgres.url() else { unreachable!("it is PostgreSQL") };
    let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
    let columns =
        "select table_name || '.' || column_name || case when is_nullable = 'YES' then '' else '!' end
        from information_schema.columns where table_schema = 'innkeeper'";
    let on_postgres: Vec<String> = sqlx::query_scalar(columns).fetch_all(&mut connection).await.unwrap();
    let mut connection = sqlx::SqliteConnection::connect(&sqlite.address()).await.unwrap();
    // An `integer primary key` cannot be null whatever it says.
    let columns = r#"select t.name || '.' || c.name || case when c."notnull" or c.pk then '!' else '' end
        from sqlite_master t, pragma_table_info(t.name) c
        where t.type = 'table' and t.name not like 'sqlite_%'"#;
    let on_sqlite: Vec<String> = sqlx::query_scalar(columns).fetch_all(&mut connection).await.unwrap();
    let set = |columns: Vec<String>| columns.into_iter().collect::<BTreeSet<_>>();
    let (on_postgres, on_sqlite) = (set(on_postgres), set(on_sqlite));
    assert!(on_sqlite.len() > 50);
    assert_eq!(on_sqlite, on_postgres);
}

#[test]
fn both_engines_have_the_same_migrations_and_every_file_is_applied() {
    let embedded = |url: &DatabaseUrl| {
        let numbered: Vec<(i32, &str)> =
            migrations(url).iter().map(|migration| (migration.number, migration.name)).collect();
        assert!(numbered.is_sorted());
        numbered
    };
    let sqlite = embedded(&DatabaseUrl::Sqlite("x".into()));
    assert_eq!(sqlite, embedded(&DatabaseUrl::Postgres("x".into())));
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let files: BTreeSet<String> = std::fs::read_dir(migrations_folder(engine))
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        let expected: BTreeSet<String> = sqlite.iter().map(|(_, name)| format!("{name}.sql")).collect();
        assert_eq!(files, expected, "{engine:?}");
    }
    for (number, name) in sqlite {
        assert!(name.starts_with(&format!("{number:04}_")), "{name} is not number {number}");
    }
}

#[tokio::test]
async fn a_command_that_only_reads_does_not_make_the_file() {
    let empty = TestDatabase::empty(Engine::Sqlite).await;
    let error = Store::connect(empty.url(), &StoreOptions::default()).await.unwrap_err();
    assert!(matches!(error, StoreError::NotMigrated(_)), "{error:?}");
    assert!(error.to_string().contains("run `innkeeper migrate` or `innkeeper serve`"), "{error}");
    let DatabaseUrl::Sqlite(path) = empty.url() else { unreachable!("it is SQLite") };
    assert!(!path.exists());
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named() {
    let file = TestDatabase::empty(Engine::Sqlite).await;
    let DatabaseUrl::Sqlite(path) = file.url() else { unreachable!("it is SQLite") };
    std::fs::write(path, "This is the operator's shopping list, and no database at all.".repeat(20)).unwrap();
    let error = Store::connect(file.url(), &StoreOptions::default()).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_named_without_the_password() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = DatabaseUrl::Postgres(format!("postgres://inn:s3cret@127.0.0.1:{port}/records"));
    let error = Store::connect(&url, &StoreOptions::default()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("/records") && text.contains("refused"), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
}
