//! A copy of a SQLite store while hosts work on it.
//!
//! `VACUUM INTO` reads one state of the file, in a read transaction: writers go on meanwhile
//! (their write-ahead log grows until it is done). The copy is made beside its place, checked,
//! flushed to the disk and then renamed, so that under its name there is a whole one or none.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use tempfile::NamedTempFile;

use super::connection::BUSY_TIMEOUT;
use super::{StoreError, sqlite};
use crate::database_url::DatabaseUrl;

/// A copy that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Where it is, as an absolute path.
    pub file: PathBuf,
    /// Bytes.
    pub size: u64,
    /// The newest migration in it.
    pub migration: i32,
}

/// Why there is no copy. A file that was there is as it was.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store is not on SQLite.
    #[error(
        "`innkeeper store backup` copies a store on SQLite, and this one is {place}: PostgreSQL has tools of its \
         own, which copy one state while hosts go on, such as `pg_dump --schema=innkeeper --format=custom \
         --file=FILE` with that database"
    )]
    NotSqlite {
        /// The store, without a password.
        place: String,
    },
    /// The copy cannot be under that name.
    #[error("{0}")]
    Refused(String),
    /// The file system.
    #[error("the copy {} cannot be written: {source}", file.display())]
    File {
        /// The copy.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What was copied is damaged.
    #[error(
        "the store {place} is damaged, and so was its copy, which was removed: {problems}. Stop the hosts and go \
         back to the last backup that is sound"
    )]
    Damaged {
        /// The store.
        place: String,
        /// What SQLite found.
        problems: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Copies a store on SQLite, of whatever version its schema is, to a file that only its owner
/// can read. `replace` says that a file of that name may be replaced.
///
/// # Errors
/// See [`BackupError`].
pub async fn backup(url: &DatabaseUrl, file: &Path, replace: bool) -> Result<Backup, BackupError> {
    let DatabaseUrl::Sqlite(store) = url else {
        return Err(BackupError::NotSqlite { place: url.to_string() });
    };
    if !store.exists() {
        return Err(nothing_to_copy(url, "does not exist yet").into());
    }
    let (folder, file) = place(file)?;
    refuse(store, &file, replace)?;
    let failed = |source| BackupError::File { file: file.clone(), source };
    let mut draft_name = OsString::from(".");
    draft_name.push(file.file_name().unwrap_or_default());
    draft_name.push(".");
    let draft = tempfile::Builder::new().prefix(&draft_name).suffix(".part").tempfile_in(&folder);
    let draft = draft.map_err(failed)?;
    let context = format!("the store {url} cannot be copied to {}", file.display());
    let newest = copy(store, draft.path()).await.map_err(|error| error.context(&context))?;
    let newest = newest.ok_or_else(|| nothing_to_copy(url, "has no schema yet"))?;
    let migration = check(draft.path(), newest)
        .await
        .map_err(|problems| BackupError::Damaged { place: url.to_string(), problems })?;
    draft.as_file().sync_all().map_err(failed)?;
    let size = draft.as_file().metadata().map_err(failed)?.len();
    publish(draft, &file, replace)?;
    // The rename itself, too.
    File::open(&folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(Backup { file, size, migration })
}

/// Fills the draft. Returns the newest migration that the store had before; none where it has
/// no schema, and nothing was copied.
async fn copy(store: &Path, draft: &Path) -> Result<Option<i32>, StoreError> {
    let name = draft.to_str();
    let name =
        name.ok_or_else(|| StoreError::Invalid(format!("the path {} is not UTF-8", draft.display())))?;
    let options = SqliteConnectOptions::new().filename(store).busy_timeout(BUSY_TIMEOUT);
    let mut source = options.connect().await?;
    let newest = newest_migration(&mut source).await?;
    if newest.is_some() {
        sqlx::query("vacuum into $1").bind(name).execute(&mut source).await?;
    }
    source.close().await?;
    Ok(newest)
}

/// Looks through the whole draft. Returns the newest migration in it, or what is wrong.
async fn check(draft: &Path, at_least: i32) -> Result<i32, String> {
    // Immutable: looking at it leaves no other files beside it.
    let options = SqliteConnectOptions::new().filename(draft).read_only(true).immutable(true);
    let looked = async {
        let mut copy = options.connect().await?;
        let found: Vec<String> =
            sqlx::query_scalar("pragma integrity_check(20)").fetch_all(&mut copy).await?;
        let newest = newest_migration(&mut copy).await?;
        copy.close().await?;
        Ok((found, newest))
    };
    match looked.await.map_err(|error: StoreError| error.to_string())? {
        (found, _) if found != ["ok"] => Err(found.join("; ")),
        (_, Some(newest)) if newest >= at_least => Ok(newest),
        (_, newest) => Err(format!("the copy is at migration {newest:?}, the store at {at_least} or later")),
    }
}

fn nothing_to_copy(url: &DatabaseUrl, why: &str) -> StoreError {
    StoreError::NotMigrated(format!("the store {url} {why}, so there is nothing to copy"))
}

/// None where there is no schema.
async fn newest_migration(conn: &mut SqliteConnection) -> Result<Option<i32>, StoreError> {
    if !sqlx::query_scalar(sqlite::SCHEMA_EXISTS).fetch_one(&mut *conn).await? {
        return Ok(None);
    }
    let newest: Option<i32> =
        sqlx::query_scalar("select max(number) from schema_migration").fetch_one(&mut *conn).await?;
    Ok(newest)
}

/// The folder of the copy and the copy itself, absolute: SQLite takes a name that begins with
/// `file:` for a URL.
fn place(file: &Path) -> Result<(PathBuf, PathBuf), BackupError> {
    let failed = |source| BackupError::File { file: file.to_owned(), source };
    let name = file.file_name().ok_or_else(|| {
        BackupError::Refused(format!("{} names no file: name the file of the copy", file.display()))
    })?;
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let folder = folder.canonicalize().map_err(failed)?;
    let file = folder.join(name);
    Ok((folder, file))
}

/// Looks at what is there already.
fn refuse(store: &Path, file: &Path, replace: bool) -> Result<(), BackupError> {
    let shown = file.display();
    for suffix in ["", "-wal", "-shm"] {
        if is_same(&with_suffix(store, suffix), file) {
            return Err(BackupError::Refused(format!(
                "{shown} belongs to the store itself: name another file for the copy"
            )));
        }
    }
    // SQLite would take what is in them for changes of the copy.
    for suffix in ["-wal", "-journal"] {
        let left = with_suffix(file, suffix);
        if left.symlink_metadata().is_ok() {
            return Err(BackupError::Refused(format!(
                "{} is there, so {shown} is, or was, a database in use, and SQLite would add those changes to the \
                 copy: name another file, or end whoever uses it and remove both",
                left.display()
            )));
        }
    }
    match file.symlink_metadata() {
        Ok(found) if found.is_dir() => {
            Err(BackupError::Refused(format!("{shown} is a folder: name a file in it for the copy")))
        }
        Ok(_) if !replace => Err(is_there(file)),
        _ => Ok(()),
    }
}

fn is_there(file: &Path) -> BackupError {
    BackupError::Refused(format!(
        "{} is there already and was left as it is; name another file, or replace it with `--force`",
        file.display()
    ))
}

fn publish(draft: NamedTempFile, file: &Path, replace: bool) -> Result<(), BackupError> {
    let published = if replace { draft.persist(file) } else { draft.persist_noclobber(file) };
    match published {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Err(is_there(file)),
        Err(error) => Err(BackupError::File { file: file.to_owned(), source: error.error }),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn is_same(one: &Path, other: &Path) -> bool {
    match (one.metadata(), other.metadata()) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}
