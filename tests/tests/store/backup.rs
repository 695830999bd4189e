//! Copying a store on SQLite while it is in use.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use innkeeper::database_url::DatabaseUrl;
use innkeeper::execution::State;
use innkeeper::store::{BackupError, Store, StoreError, StoreOptions, backup, migrations};
use innkeeper_tests::database::Engine;

use crate::world::{World, job, success};

async fn world() -> World {
    World::new(Engine::Sqlite).await
}

fn store_file(world: &World) -> &Path {
    let DatabaseUrl::Sqlite(path) = world.database.url() else { unreachable!("it is SQLite") };
    path
}

/// A place for copies, and what is in it at the end.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }

    fn names(&self) -> Vec<String> {
        let mut names = std::fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect::<Vec<_>>();
        names.sort();
        names
    }
}

async fn refused(world: &World, file: &Path, replace: bool) -> String {
    let error = backup(world.database.url(), file, replace).await.unwrap_err();
    assert!(matches!(error, BackupError::Refused(_)), "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn a_copy_has_what_was_committed_and_nothing_of_a_transaction_that_is_open() {
    let world = world().await;
    let (_, attempt) = world.running().await;
    // In the write-ahead log only, since the store is open; and this is not committed at all.
    let open = world.hold("begin immediate; delete from start").await;
    let folder = Folder::new();
    let file = folder.file("copy.db");
    let made = backup(world.database.url(), &file, false).await.unwrap();
    drop(open);
    assert_eq!(made.file, file);
    assert_eq!(made.size, file.metadata().unwrap().len());
    assert_eq!(made.migration, migrations(world.database.url()).last().unwrap().number);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(folder.names(), ["copy.db"], "nothing else is left behind");

    let copy = Store::connect(&DatabaseUrl::Sqlite(file), &StoreOptions::default()).await.unwrap();
    copy.check_schema().await.unwrap();
    let copied = copy.execution(attempt.execution).await.unwrap().unwrap();
    assert_eq!((copied.state, copied.attempt), (State::Running, 1));
}

#[tokio::test]
async fn a_lease_is_not_used_again_in_a_copy() {
    let world = world().await;
    let (session, attempt) = world.running().await;
    world.record(session, success(&attempt)).await;
    world.tamper("delete from start").await;
    let folder = Folder::new();
    let file = folder.file("copy.db");
    backup(world.database.url(), &file, false).await.unwrap();
    let url = DatabaseUrl::Sqlite(file);
    let copy = Store::connect(&url, &StoreOptions::default()).await.unwrap();
    copy.enqueue(&crate::world::by_hand(&job("j").name)).await.unwrap();
    let again = copy.with_clock(world.clock.for_store()).claim(session, 1).await.unwrap().remove(0);
    assert!(again.lease > attempt.lease, "{} after {}", again.lease, attempt.lease);
}

#[tokio::test]
async fn a_file_that_is_there_is_replaced_only_on_demand() {
    let world = world().await;
    let folder = Folder::new();
    let file = folder.file("copy.db");
    std::fs::write(&file, "somebody's file").unwrap();
    let error = refused(&world, &file, false).await;
    assert!(error.contains("copy.db is there already") && error.contains("--force"), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), b"somebody's file");
    backup(world.database.url(), &file, true).await.unwrap();
    assert!(std::fs::read(&file).unwrap().starts_with(b"SQLite format 3\0"));
    assert_eq!(folder.names(), ["copy.db"]);
}

#[tokio::test]
async fn the_store_itself_is_never_replaced_whatever_it_is_called() {
    let world = world().await;
    world.jobs(&[job("j")]).await;
    let store = store_file(&world);
    let folder = Folder::new();
    let (link, hard) = (folder.file("link.db"), folder.file("hard.db"));
    std::os::unix::fs::symlink(store, &link).unwrap();
    std::fs::hard_link(store, &hard).unwrap();
    let log = store.with_file_name("test.db-wal");
    for file in [store, &link, &hard, &log] {
        let error = refused(&world, file, true).await;
        assert!(error.contains("belongs to the store itself"), "{error}");
    }
    world.store.check_schema().await.unwrap();
}

#[tokio::test]
async fn a_write_ahead_log_that_would_be_taken_for_the_copys_is_named() {
    let world = world().await;
    let folder = Folder::new();
    std::fs::write(folder.file("copy.db-wal"), "changes of another database").unwrap();
    for replace in [false, true] {
        let error = refused(&world, &folder.file("copy.db"), replace).await;
        assert!(error.contains("copy.db-wal is there"), "{error}");
    }
    assert_eq!(folder.names(), ["copy.db-wal"]);
}

#[tokio::test]
async fn a_store_that_is_damaged_is_told_and_no_copy_is_left() {
    let world = world().await;
    world.jobs(&[job("j")]).await;
    // A row without what the schema says that every row has.
    let damage = "pragma writable_schema = on;
        update sqlite_schema set sql = replace(sql, 'owner        text not null', 'owner        text')
        where name = 'job';
        pragma writable_schema = reset;
        update job set owner = null;
        pragma writable_schema = on;
        update sqlite_schema set sql = replace(sql, 'owner        text', 'owner        text not null')
        where name = 'job'";
    world.tamper(damage).await;
    let folder = Folder::new();
    let error = backup(world.database.url(), &folder.file("copy.db"), false).await.unwrap_err();
    assert!(matches!(error, BackupError::Damaged { .. }), "{error:?}");
    let told = error.to_string();
    assert!(told.contains("test.db is damaged") && told.contains("job.owner"), "{told}");
    assert_eq!(folder.names(), Vec::<String>::new());
}

#[tokio::test]
async fn a_store_of_an_older_schema_is_copied_since_that_is_when_one_is_wanted() {
    let world = world().await;
    let first = "delete from schema_migration where number = (select max(number) from schema_migration)";
    world.tamper(first).await;
    let folder = Folder::new();
    let made = backup(world.database.url(), &folder.file("copy.db"), false).await.unwrap();
    assert_eq!(made.migration, migrations(world.database.url()).last().unwrap().number - 1);
}

#[tokio::test]
async fn nothing_is_made_where_there_is_nothing_to_copy_or_nowhere_to_put_it() {
    let world = world().await;
    let folder = Folder::new();
    let gone = DatabaseUrl::Sqlite(folder.file("gone.db"));
    let error = backup(&gone, &folder.file("copy.db"), false).await.unwrap_err();
    assert!(matches!(error, BackupError::Store(StoreError::NotMigrated(_))), "{error:?}");
    let error = backup(world.database.url(), &folder.file("no/copy.db"), false).await.unwrap_err();
    assert!(error.to_string().contains("no/copy.db cannot be written"), "{error}");
    std::fs::create_dir(folder.file("folder")).unwrap();
    let error = refused(&world, &folder.file("folder"), true).await;
    assert!(error.contains("is a folder"), "{error}");
    assert_eq!(folder.names(), ["folder"]);
}

#[tokio::test]
async fn postgresql_is_sent_to_its_own_tool_without_its_password() {
    let folder = Folder::new();
    let url = DatabaseUrl::Postgres("postgres://inn:s3cret@127.0.0.1:9/inn".to_owned());
    let error = backup(&url, &folder.file("copy.db"), false).await.unwrap_err().to_string();
    assert!(error.contains("pg_dump --schema=innkeeper") && error.contains("inn@127.0.0.1:9/inn"), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
}
