//! Neighbouring versions of innkeeper on one store: what goes on, and what is refused.

use innkeeper::execution::State;
use innkeeper::store::{Migration, NewSession, SessionId, Store, StoreError, migrations};
use innkeeper_tests::database::{Engine, TestDatabase};
use innkeeper_tests::host::PATIENCE;
use innkeeper_tests::raw::Raw;
use innkeeper_tests::versions::{newest, next_version};
use uuid::Uuid;

use crate::rule;
use crate::world::{TTL, World, job, success};

/// The same store, as the next version sees it. `oldest_compatible` is what its migration declares.
async fn next(world: &World, oldest_compatible: Option<i32>) -> Store {
    let migrations = next_version(world.database.engine(), oldest_compatible);
    world.another_store(2).await.with_migrations(migrations)
}

/// As [`next`], with a migration that binaries of this version cannot follow.
async fn breaking(world: &World) -> Store {
    next(world, Some(newest(world.database.engine()) + 1)).await
}

async fn register(store: &Store, host: &str) -> Result<SessionId, StoreError> {
    let boot_id = Uuid::new_v4();
    let session = NewSession { host, boot_id, version: "0.1.0", ttl: TTL, slots: 4, plugins: &[] };
    store.register_session(&session).await
}

rule!(hosts_of_this_version_go_on_when_the_next_one_migrates, async |world: &World| {
    let (session, attempt) = world.running().await;
    let next = next(world, None).await;
    assert!(matches!(next.check_schema().await, Err(StoreError::Behind { .. })));
    assert_eq!(next.migrate().await.unwrap().applied.len(), 1);

    world.store.heartbeat(session, TTL, None).await.unwrap();
    world.record(session, success(&attempt)).await;
    assert_eq!(world.state(attempt.execution).await, State::Succeeded);
    world.enqueue("j").await;
    let attempt = world.claim_one(session).await;
    world.jobs(&[job("j"), job("k")]).await;
    world.crash_all().await;
    assert_eq!(world.state(attempt.execution).await, State::Retrying);

    world.store.check_schema().await.unwrap();
    assert_eq!(world.store.migrate().await.unwrap().applied, []);
    world.host("inn-2").await;
    next.check_schema().await.unwrap();
    register(&next, "inn-3").await.unwrap();
});

rule!(a_migration_that_would_leave_live_hosts_behind_is_refused_with_their_names, async |world: &World| {
    let inn_1 = world.host("inn-1").await;
    let inn_2 = world.host("inn-2").await;
    let applied = world.count("schema_migration", "true").await;
    let next = breaking(world).await;
    let error = next.migrate().await.unwrap_err();
    assert!(matches!(error, StoreError::HostsTooOld { .. }), "{error:?}");
    let text = error.to_string();
    for host in [("inn-1", inn_1), ("inn-2", inn_2)] {
        assert!(text.contains(&format!("host `{}` (session {})", host.0, host.1.0)), "{text}");
    }
    assert!(text.contains("is innkeeper 0.1.0") && text.contains("SIGTERM"), "{text}");
    assert_eq!(world.count("schema_migration", "true").await, applied);
    for session in [inn_1, inn_2] {
        world.store.heartbeat(session, TTL, None).await.unwrap();
        world.store.check_schema().await.unwrap();
        world.store.end_session(session).await.unwrap();
    }
    assert_eq!(next.migrate().await.unwrap().applied.len(), 1, "nobody is left behind");
});

rule!(hosts_that_know_what_a_migration_asks_for_do_not_hold_it_up, async |world: &World| {
    let session = world.host("inn-1").await;
    let next = next(world, Some(newest(world.database.engine()))).await;
    assert_eq!(next.migrate().await.unwrap().applied.len(), 1);
    world.store.check_schema().await.unwrap();
    world.store.heartbeat(session, TTL, None).await.unwrap();
    world.host("inn-2").await;
});

rule!(a_host_that_did_not_say_what_it_knows_is_of_the_first_version, async |world: &World| {
    let session = world.host("inn-1").await;
    world
        .tamper(&format!("update {{}}host_session set knows_migration = null where id = {}", session.0))
        .await;
    let error = next(world, Some(2)).await.migrate().await.unwrap_err();
    assert!(error.to_string().contains("knows migrations up to 1"), "{error}");
    assert_eq!(next(world, Some(1)).await.migrate().await.unwrap().applied.len(), 1);
});

rule!(
    a_host_that_has_expired_is_ended_before_it_can_wake_up_to_a_schema_that_it_does_not_know,
    async |world: &World| {
        let (session, attempt) = world.running().await;
        world.clock.advance(TTL);
        assert_eq!(breaking(world).await.migrate().await.unwrap().applied.len(), 1);
        let beat = world.store.heartbeat(session, TTL, None).await;
        assert!(matches!(beat, Err(StoreError::SessionLost)), "{beat:?}");
        assert_eq!(world.state(attempt.execution).await, State::Retrying);
        assert_eq!(world.execution(attempt.execution).await.attempt, 1, "as after any crash");
    }
);

rule!(a_binary_that_the_schema_declares_too_old_neither_checks_in_nor_migrates, async |world: &World| {
    let declared = newest(world.database.engine()) + 1;
    breaking(world).await.migrate().await.unwrap();
    let refused = [
        world.store.check_schema().await,
        world.store.migrate().await.map(drop),
        // A host that has lost its session does this without looking at the schema first.
        register(&world.store, "inn-1").await.map(drop),
    ];
    for refused in refused {
        let error = refused.unwrap_err();
        assert!(matches!(error, StoreError::TooOld { .. }), "{error:?}");
        assert!(error.to_string().contains(&format!("migration {declared}")), "{error}");
    }
    assert_eq!(world.count("host_session", "true").await, 0);
});

rule!(a_schema_of_another_line_of_versions_is_not_touched, async |world: &World| {
    let other = "insert into {}schema_migration (number, name, checksum, version, applied_at)
        select 9999, '9999_other', '', '99.0.0', applied_at from {}schema_migration limit 1";
    world.tamper(other).await;
    let next = next(world, None).await;
    for refused in [next.check_schema().await, next.migrate().await.map(drop)] {
        let error = refused.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("`9999_other`, applied by innkeeper 99.0.0") && text.contains("_next`"),
            "{text}"
        );
    }
});

rule!(
    a_binary_of_a_version_before_goes_on_after_this_one_has_migrated_unless_a_migration_says_otherwise,
    async |world: &World| {
        let engine = world.database.engine();
        let all = migrations(world.database.url());
        for known in 1..all.len() {
            let database = TestDatabase::empty(engine).await;
            let before = database.store(1).await.with_migrations(&all[..known]);
            before.migrate().await.unwrap();
            let ours = database.store(1).await;
            let error = ours.check_schema().await.unwrap_err();
            assert!(matches!(error, StoreError::Behind { .. }), "{error:?}");
            assert!(error.to_string().contains("run `innkeeper migrate`"), "{error}");
            let applied = ours.migrate().await.unwrap().applied;
            let numbers = |all: &[Migration]| all.iter().map(|one| one.number).collect::<Vec<_>>();
            let told: Vec<_> = applied.iter().map(|applied| applied.number).collect();
            assert_eq!(told, numbers(&all[known..]));
            let newest_known = all[known - 1].number;
            let is_refused =
                all.iter().any(|one| one.oldest_compatible.is_some_and(|oldest| oldest > newest_known));
            match before.check_schema().await {
                Ok(()) => assert!(!is_refused, "one that knows {newest_known}"),
                Err(error) => assert!(is_refused && matches!(error, StoreError::TooOld { .. }), "{error:?}"),
            }
        }
    }
);

/// Migrates, and returns the columns that there are then, each as a text that tells what it is;
/// and those that an INSERT may leave out.
async fn columns_after(
    migrations: &'static [Migration],
    database: &TestDatabase,
) -> (Vec<String>, Vec<String>) {
    let store = database.store(1).await.with_migrations(migrations);
    store.migrate().await.unwrap();
    store.close().await;
    let (all, optional) = match database.engine() {
        Engine::Postgres => (
            "select table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable
             from information_schema.columns where table_schema = 'innkeeper'",
            " and (is_nullable = 'YES' or column_default is not null or is_identity = 'YES')",
        ),
        Engine::Sqlite => (
            r#"select t.name || '.' || c.name || ' ' || c.type || ' ' || c."notnull"
            from sqlite_master t, pragma_table_info(t.name) c
            where t.type = 'table' and t.name not like 'sqlite_%'"#,
            r#" and (c."notnull" = 0 or c.dflt_value is not null)"#,
        ),
    };
    let mut raw = Raw::connect(database.url()).await;
    (raw.texts(all).await, raw.texts(&format!("{all}{optional}")).await)
}

rule!(
    a_migration_that_does_not_say_otherwise_only_adds_what_older_hosts_may_ignore,
    async |world: &World| {
        let engine = world.database.engine();
        let table = |column: &String| column.split('.').next().unwrap_or_default().to_owned();
        let all = migrations(world.database.url());
        for (at, migration) in all.iter().enumerate().skip(1) {
            if let Some(oldest) = migration.oldest_compatible {
                assert!((1..=migration.number).contains(&oldest), "{}", migration.name);
                continue;
            }
            let database = TestDatabase::empty(engine).await;
            let (before, _) = columns_after(&all[..at], &database).await;
            let (after, optional) = columns_after(&all[..=at], &database).await;
            let name = migration.name;
            for column in &before {
                assert!(after.contains(column), "{name} takes away or changes {column}");
            }
            let tables = before.iter().map(table).collect::<Vec<_>>();
            for new in
                after.iter().filter(|column| !before.contains(column) && tables.contains(&table(column)))
            {
                assert!(optional.contains(new), "{name} adds {new}, which older hosts do not fill in");
            }
        }
    }
);

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_registers_while_a_migration_is_under_way_waits_and_is_held_against_it() {
    let world = World::new(Engine::Postgres).await;
    let migration = "begin; select pg_advisory_xact_lock(7598807797348065637);
        insert into {}schema_migration (number, name, checksum, version, applied_at)
        values (9999, '9999_future', '', '99.0.0', now());
        update {}schema_info set oldest_compatible = 9999";
    let mut migration = world.hold(migration).await;
    let store = world.store.clone();
    let registering = tokio::spawn(async move { register(&store, "inn-1").await });
    world.until_blocked(|| registering.is_finished()).await;
    migration.run("commit").await;
    let error = registering.await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::TooOld { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_has_to_wait_for_a_reader_lets_the_hosts_through_meanwhile() {
    let world = World::new(Engine::Postgres).await;
    let (session, attempt) = world.running().await;
    let mut reader = world.hold("begin; select count(*) from {}host_session").await;
    let next = next(&world, None).await;
    let migrating = tokio::spawn(async move { next.migrate().await });
    world.until_blocked(|| migrating.is_finished()).await;
    let work = async {
        world.store.heartbeat(session, TTL, None).await.unwrap();
        world.record(session, success(&attempt)).await;
    };
    tokio::time::timeout(PATIENCE, work).await.expect("the queue behind the migration moves on");
    // Nothing has ended the reader's transaction, which the migration is still waiting for.
    reader.run("select count(*) from {}host_session").await;
    assert!(!migrating.is_finished());
    reader.run("commit").await;
    assert_eq!(migrating.await.unwrap().unwrap().applied.len(), 1);
}
