//! `[store]` and `[databases.NAME]`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::document::Text;
use super::same_file::Identity;
use super::table::Table;
use super::{DatabaseConfig, StoreConfig, history};
use crate::database_url::{self, DatabaseUrl};
use crate::job::{History, Name};

/// Enough for one host, and below what a PostgreSQL server accepts by default in all (100).
const STORE_CONNECTIONS: u32 = 4;
const DATABASE_CONNECTIONS: u32 = 16;
const MOST_CONNECTIONS: u32 = 10_000;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// A batch takes some milliseconds, and on a machine in trouble a second. Below the time that a
/// host session lasts by default: a network that was silent for a moment does not cost it.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);
const SMALLEST_SIZE: u64 = 1 << 20;
/// Just above what SQLite can address with its pages of 4 KiB (<https://sqlite.org/limits.html>).
const LARGEST_SIZE: u64 = 16 << 40;

/// `[store]`, which may be left out.
pub(super) fn store(table: Option<Table<'_>>, data_dir: &Path) -> StoreConfig {
    let default_url = || DatabaseUrl::Sqlite(data_dir.join("innkeeper.db"));
    let Some(table) = table else {
        return StoreConfig {
            url: default_url(),
            max_connections: STORE_CONNECTIONS,
            timeout: STORE_TIMEOUT,
            transaction_pooler: false,
            history: History::default(),
        };
    };
    let url = table.text("url").and_then(|text| url(&table, &text, data_dir));
    let max_connections = table.integer("max_connections", STORE_CONNECTIONS, 1..=MOST_CONNECTIONS);
    let timeout = table.duration("timeout", STORE_TIMEOUT, Duration::from_secs(1)..=Duration::from_secs(600));
    let transaction_pooler = table.choice("pooler", false, &[("none", false), ("transaction", true)]);
    if transaction_pooler
        && !matches!(url, Some(DatabaseUrl::Postgres(_)))
        && let Some(entry) = table.entry("pooler")
    {
        let message = "`pooler` is for PostgreSQL only: nothing stands before a SQLite file; leave it out";
        table.doc.error(entry.key_at, message);
    }
    let history = history::history(&table, History::default());
    table.finish();
    let url = url.unwrap_or_else(default_url);
    StoreConfig { url, max_connections, timeout, transaction_pooler, history }
}

/// `[databases.NAME]`: none of them may be the store's own file.
pub(super) fn databases(
    tables: Vec<(Name, Table<'_>)>,
    data_dir: &Path,
    store: &StoreConfig,
) -> BTreeMap<Name, DatabaseConfig> {
    let store_file = file(&store.url);
    let mut databases = BTreeMap::new();
    for (name, table) in tables {
        let text = table.required_text("url", "\"sqlite:app.db\"");
        let url = text.as_ref().and_then(|text| url(&table, text, data_dir));
        if let (Some(text), Some(url)) = (&text, &url)
            && store_file.is_some()
            && file(url) == store_file
        {
            let message = format!(
                "`{}` is the file of the host's own store; give the two a file each: SQLite has one writer, \
                 and a plugin's transaction must not hold up the host's records",
                text.written
            );
            table.doc.error(text.at, message);
        }
        if let (Some(text), Some(DatabaseUrl::Postgres(url))) = (&text, &url)
            && database_url::servers(url).len() > 1
        {
            let message = "`url` must name one server here: only [store] looks for the one of several that \
                           takes writes; name an address that follows it";
            table.doc.error(text.at, message);
        }
        let max_connections = table.integer("max_connections", DATABASE_CONNECTIONS, 1..=MOST_CONNECTIONS);
        let acquire_timeout = table.duration(
            "acquire_timeout",
            ACQUIRE_TIMEOUT,
            Duration::from_millis(1)..=Duration::from_secs(3600),
        );
        let max_size = max_size(&table, url.as_ref());
        table.finish();
        if let Some(url) = url {
            databases.insert(name, DatabaseConfig { url, max_connections, acquire_timeout, max_size });
        }
    }
    databases
}

/// How large a SQLite file may grow.
fn max_size(table: &Table<'_>, url: Option<&DatabaseUrl>) -> Option<u64> {
    let entry = table.entry("max_size")?;
    if matches!(url, Some(DatabaseUrl::Postgres(_))) {
        let message = "`max_size` is for SQLite only, whose file the host writes itself: PostgreSQL bounds no \
                       database; leave it out, and give a tablespace or a disk of its own to what must not \
                       fill the server's";
        table.doc.error(entry.key_at, message);
        return None;
    }
    Some(table.bytes("max_size", 1 << 30, SMALLEST_SIZE..=LARGEST_SIZE))
}

fn url(table: &Table<'_>, text: &Text<'_>, data_dir: &Path) -> Option<DatabaseUrl> {
    let url = DatabaseUrl::parse(text.value(), data_dir);
    let problem = match &url {
        Ok(DatabaseUrl::Sqlite(path)) if path.is_dir() => {
            "must name a file, and this is a directory".to_owned()
        }
        Ok(_) => return url.ok(),
        Err(error) => error.to_string(),
    };
    table.doc.error(text.at, format!("`url` {problem}"));
    None
}

fn file(url: &DatabaseUrl) -> Option<Identity> {
    match url {
        DatabaseUrl::Sqlite(path) => Some(Identity::of(path)),
        DatabaseUrl::Postgres(_) => None,
    }
}
